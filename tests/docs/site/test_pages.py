"""The pages of the site are those of the repository, and the files that they link to become pages."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from docs.site.pages import collect

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\]\(([^)\s#]+)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "old.md").write_text("from an earlier build")
    collect(ROOT, folder)
    return folder


def test_each_link_of_each_page_leads_to_a_page_or_a_picture(pages):
    found = {page: LINK.findall(page.read_text(encoding="utf-8")) for page in pages.rglob("*.md")}
    assert sum(map(len, found.values())) > 100
    lost = [
        (page.name, link)
        for page, links in found.items()
        for link in links
        if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists()
    ]
    assert lost == []


def test_what_an_earlier_build_left_is_gone(pages):
    assert not (pages / "old.md").exists()


def test_every_page_is_in_the_menu(pages):
    settings = (ROOT / "docs" / "site" / "site.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"(\S+\.md)$", settings, re.MULTILINE))
    written = {"reference/recipe.md", "reference/commands.md", "reference/python.md"}
    # Pages that show one file are reached by the links to them.
    files = {str(page.relative_to(pages)) for page in pages.rglob("*.md") if page.suffixes == [".md"]}
    assert files | written | {"examples/tutorial.ipynb.md"} == named


def test_a_notebook_is_shown_by_its_cells(pages):
    shown = (pages / "examples" / "tutorial.ipynb.md").read_text(encoding="utf-8")
    assert shown.startswith("# Distil a language model")
    assert "````python\n%%bash\npotstill run" in shown
    assert "cell_type" not in shown


def test_the_settings_are_yaml():
    text = (ROOT / "docs" / "site" / "site.yml").read_text(encoding="utf-8")
    assert YAML(typ="safe", pure=True).load(re.sub(r"!!python/name:", "", text))["nav"]
