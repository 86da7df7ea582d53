"""Every key of a recipe stands in the reference, with what its docstring says."""

import re

import pytest

from docs.site.recipe_keys import recipe_keys
from potstill.recipe import Recipe


@pytest.fixture(scope="module")
def page():
    return recipe_keys()


def test_every_section_and_key_is_there(page):
    schema = Recipe.model_json_schema(by_alias=True)
    assert re.findall(r"^## `(\w+)`$", page, re.MULTILINE) == list(schema["properties"])
    for name, form in schema["$defs"].items():
        title = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).capitalize()
        (section,) = re.findall(rf"^### {title}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert re.findall(r"^- \*\*`(\S+)`\*\*", section, re.MULTILINE) == list(form.get("properties", {}))


def test_a_key_has_its_type_its_default_and_its_meaning(page):
    assert "- **`k`** *whole number, > 0* — The number of most likely tokens that are kept" in page
    assert re.search(r"- \*\*`losses`\*\* \*list of \[Cross entropy\]\(#cross-entropy\) or .*\*, required — ", page)
    assert "- **`keep`** *`last` or `best`* — Which weights become the student" in page


def test_every_link_to_a_form_leads_to_one(page):
    titles = {title.lower().replace(" ", "-") for title in re.findall(r"^### (.*)$", page, re.MULTILINE)}
    assert {*re.findall(r"\]\(#([\w-]+)\)", page)} <= titles
