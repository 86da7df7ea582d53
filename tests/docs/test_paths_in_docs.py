"""Every file that the docs point to exists: relative links, their anchors, and the paths that pages name as code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAMES_PATHS = ("CONTRIBUTING.md", "docs/architecture.md")
"""Pages that say where code is."""
HOMES = (ROOT, ROOT / "src" / "potstill")
"""The folders that a path on those pages may start from."""
IS_PATH = re.compile(r"[\w<>./*-]+(\.py|\.md|\.yaml|/)")


def links(page: Path) -> list[str]:
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def named_paths(page: Path) -> list[str]:
    return [code for code in CODE.findall(page.read_text(encoding="utf-8")) if IS_PATH.fullmatch(code)]


def exists(path: str) -> bool:
    """Whether a path is there; `<name>` stands for any name."""
    pattern = re.sub(r"<\w+>", "*", path)
    return any(next(home.glob(pattern), None) is not None for home in HOMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n[a](#a-page) [b](page.md) [c](https://x.org/y) [d](#nowhere) [e](other.md)")
    assert broken(page) == ["#nowhere", "other.md"]


@pytest.mark.parametrize("name", NAMES_PATHS)
def test_every_path_that_a_page_names_exists(name):
    paths = named_paths(ROOT / name)
    assert paths
    assert [path for path in paths if not exists(path)] == []


def test_a_path_that_is_not_there_is_found():
    assert exists("stages/<name>.py")
    assert exists("losses/loss.py")
    assert not exists("stages/<name>.yaml")
    assert not exists("losses/terms.py")
