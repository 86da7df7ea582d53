"""A recipe with any one value replaced: it is refused in one sentence before anything runs, or it runs to its end.

`make fuzz` tries thousands.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import check_stages, run_recipe
from potstill.recipe import Recipe, load_recipe
from refusals import Refused, unless_refused
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


def _mutated(toys: Any, data: st.DataObject, values: list[str]) -> Recipe | Refused:
    """A toy with one value replaced, or with one new key; or its refusal before anything runs."""
    name = data.draw(st.sampled_from(sorted(toys)))
    overrides, keys = toys[name]
    key = data.draw(st.sampled_from(keys))
    if data.draw(st.booleans()) and data.draw(st.booleans()):
        key = f"{key}.{data.draw(st.sampled_from(NEW_KEYS))}"
    changed = [*overrides, f"{key}={data.draw(st.sampled_from(values))}"]

    def checked() -> Recipe:
        recipe = load_recipe(name, changed)
        check_stages(recipe)
        return recipe

    return unless_refused(checked)


FUZZED = settings(phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))


def test_an_unchanged_toy_is_taken(toys):
    for name, (overrides, _) in toys.items():
        check_stages(load_recipe(name, overrides))


@settings(FUZZED, max_examples=4 * settings.default.max_examples)
@given(data=st.data())
def test_any_value_is_taken_or_refused_in_one_sentence(toys, data):
    found = _mutated(toys, data, SMALL + OTHERS + HUGE)
    assert isinstance(found, Recipe) or found.is_one_sentence


@pytest.mark.slow
@settings(FUZZED, max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_what_is_taken_runs_to_its_end_or_is_refused_in_one_sentence(toys, tmp_path_factory, data):
    found = _mutated(toys, data, SMALL + OTHERS)
    if isinstance(found, Recipe):
        run = Run(tmp_path_factory.mktemp("mutated") / "run")
        refusal = unless_refused(lambda: run_recipe(found, run))
        assert refusal.is_one_sentence if isinstance(refusal, Refused) else run.manifest("report")
