"""A recipe with any one value replaced: it is refused in one sentence before anything runs, or it runs to its end.

`make fuzz` tries thousands.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import check_stages, run_recipe
from potstill.recipe import Recipe, load_recipe
from tiny import toy_overrides

SMALL = ["-1", "0", "1", "2", "3", "0.5", "1.5", "-0.5", "1e-9"]
OTHERS = [
    *("null", "true", "false", ".nan", ".inf", "-.inf", "[]", "{}", "[1]", "[[]]", "{a: 1}", "[null]"),
    *('""', '"3"', '"5e-4"', "x", "yes", "2024-01-01", "../x", "a/b", "~nobody/x", "manifest.json", "naïve"),
    *('"\\0"', '"a\\nb"', "x" * 300, "'{{ x }}'", "\"{{ 'a' * 10**9 }}\""),
    '"{% for i in range(10**9) %}{{ i }}{% endfor %}"',
]
"""Values of YAML that no key expects, or that few do."""
HUGE = ["100000000000", "-100000000000", "1e300", "[100000000000]"]
"""Values that a recipe may ask for, and that no test may run."""
MUTATED = ("quickstart", "babyllama-mini", "gsm8k-mini")
NEW_KEYS = ("learning_rat", "weight", "k", "path", "", "0", "__class__", "x" * 300)


def keys_of(value: Any, above: str = "") -> Iterator[str]:
    """Every key of a recipe, as `--set` names it, with those of lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        key = f"{above}.{name}".strip(".")
        yield key
        yield from keys_of(part, key)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """By recipe: the overrides that make a toy of it, and all keys of the toy."""
    found = {}
    for name in MUTATED:
        overrides = toy_overrides(name, tmp_path_factory.mktemp(name))
        found[name] = overrides, list(keys_of(load_recipe(name, overrides).model_dump(mode="json", by_alias=True)))
    return found


def _mutated(toys: Any, data: st.DataObject, values: list[str]) -> Recipe | None:
    """A toy with one value replaced, or one new key; None if it is refused in one sentence."""
    name = data.draw(st.sampled_from(sorted(toys)))
    overrides, keys = toys[name]
    key = data.draw(st.sampled_from(keys))
    if data.draw(st.booleans()) and data.draw(st.booleans()):
        key = f"{key}.{data.draw(st.sampled_from(NEW_KEYS))}"
    try:
        recipe = load_recipe(name, [*overrides, f"{key}={data.draw(st.sampled_from(values))}"])
        check_stages(recipe)
    except UserError as error:
        if "\n" in str(error) or "Traceback" in str(error):
            raise
        return None
    return recipe


FUZZED = settings(phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))


@settings(FUZZED, max_examples=4 * settings.default.max_examples)
@given(data=st.data())
def test_any_value_is_taken_or_refused_in_one_sentence(toys, data):
    _mutated(toys, data, SMALL + OTHERS + HUGE)


@pytest.mark.slow
@settings(FUZZED, max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_what_is_taken_runs_to_its_end_or_is_refused_in_one_sentence(toys, tmp_path_factory, data):
    recipe = _mutated(toys, data, SMALL + OTHERS)
    if recipe is None:
        return
    try:
        run_recipe(recipe, Run(tmp_path_factory.mktemp("mutated") / "run"))
    except UserError as error:
        if "\n" in str(error):
            raise
