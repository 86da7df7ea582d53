"""`--set`: which value it changes, and its error messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimal
from potstill.errors import UserError
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.load import _parse
from potstill.recipe.overrides import apply_override, override


@pytest.mark.parametrize(
    ("key", "value", "then"),
    [
        ("a", 1, {"a": 1, "b": {"c": [1, {"d": 2}]}}),
        ("b.c.0", 9, {"b": {"c": [9, {"d": 2}]}}),
        ("b.c.1.d", 9, {"b": {"c": [1, {"d": 9}]}}),
        ("b.c", None, {"b": {"c": None}}),
        ("x.y.z", 9, {"b": {"c": [1, {"d": 2}]}, "x": {"y": {"z": 9}}}),
        ("empty.k", 9, {"b": {"c": [1, {"d": 2}]}, "empty": {"k": 9}}),
    ],
)
def test_one_key_is_set_and_nothing_else(key, value, then):
    raw = {"b": {"c": [1, {"d": 2}]}} | ({"empty": None} if key.startswith("empty") else {})
    override(raw, key, value)
    assert raw == then


def test_a_name_may_contain_dots():
    raw = {"teachers": {"qwen2.5": {"weight": 1}, "qwen2": {"weight": 1}}}
    override(raw, "teachers.qwen2.5.weight", 3)
    assert raw == {"teachers": {"qwen2.5": {"weight": 3}, "qwen2": {"weight": 1}}}


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("list.2", "--set list.2: the list has no item `list.2`; it has 2 items, counted from 0"),
        ("list.-1", "--set list.-1: the list has no item `list.-1`; it has 2 items, counted from 0"),
        ("list.x.y", "--set list.x.y: the list has no item `list.x`; it has 2 items, counted from 0"),
        ("word.x", "--set word.x: `word` is a plain value and has no keys"),
        ("list.0.x", "--set list.0.x: `list.0` is a plain value and has no keys"),
    ],
)
def test_a_key_that_does_not_exist_is_refused(key, sentence):
    raw = {"list": [1, 2], "word": "w"}
    with pytest.raises(UserError) as error:
        override(raw, key, 1)
    assert str(error.value) == sentence
    assert raw == {"list": [1, 2], "word": "w"}


@pytest.mark.parametrize("nonsense", ["about", "=1", "a..b=1", ".a=1", "a.=1"])
def test_an_override_without_key_or_value_is_refused(tmp_path, nonsense):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, nonsense)
    assert str(error.value) == f"--set {nonsense!r}: write it as `section.key=value`"


def test_values_are_yaml(tmp_path):
    sets = ("seeds=[0, 1]", "control=null", "capture.keep=hidden", "distil.training.learning_rate=3e-4")
    recipe = minimal.recipe(tmp_path, *sets)
    assert recipe.seeds == [0, 1]
    assert recipe.control is None
    assert recipe.capture.keep == "hidden"
    assert recipe.distil.training["learning_rate"] == 3e-4
    with pytest.raises(UserError, match=r"^--set 'seeds=\[', line 1: not valid YAML"):
        minimal.recipe(tmp_path, "seeds=[")


def test_later_overrides_win_and_the_file_is_not_changed(tmp_path):
    file = minimal.write(tmp_path)
    assert load_recipe(str(file), ["about=one", "about=two"]).about == "two"
    assert file.read_text() == minimal.TEXT


def test_a_value_shared_by_an_alias_changes_in_one_place_only():
    shared = {"learning_rate": 1, "deep": {"a": 1}}
    raw = {"one": {"training": shared}, "other": {"training": shared}}
    override(raw, "other.training.deep.a", 2)
    override(raw, "other.training.learning_rate", 3)
    assert raw["one"]["training"] == {"learning_rate": 1, "deep": {"a": 1}}
    assert raw["other"]["training"] == {"learning_rate": 3, "deep": {"a": 2}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seeds=0,1", [0, 1]),
        ("seeds= 0, 1 ", [0, 1]),
        ("seeds=[0,1]", [0, 1]),
        ("student.layers=2", 2),
        ("student.layers=0,1", [0, 1]),
        ("corpus.sources={path: a.txt},{path: b.txt}", [{"path": "a.txt"}, {"path": "b.txt"}]),
        ("distil.losses={kind: jsd, weight: 2},{kind: jsd}", [{"kind": "jsd", "weight": 2}, {"kind": "jsd"}]),
        ("seeds=3,", [3]),
        ("search.temperatures=1,2.5", [1, 2.5]),
        ("experiments.a.b.losses={kind: jsd},{kind: jsd}", [{"kind": "jsd"}, {"kind": "jsd"}]),
        ("about=one, two", "one, two"),
        ("distil.training.optim_args=a=1,b=2", "a=1,b=2"),
        ("control=null", None),
    ],
)
def test_a_key_that_takes_a_list_needs_no_brackets(text, value):
    raw = {}
    apply_override(raw, text, Recipe, _parse)
    node = raw
    while isinstance(node, dict) and len(node) == 1 and node != value:
        (node,) = node.values()
    assert node == value


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2))
def test_a_list_without_brackets_is_the_list_with_brackets(seeds):
    bare, bracketed = {}, {}
    apply_override(bare, "seeds=" + ",".join(map(str, seeds)), Recipe, _parse)
    apply_override(bracketed, f"seeds={seeds}", Recipe, _parse)
    assert bare == bracketed == {"seeds": seeds}


def test_an_index_may_be_written_in_brackets(tmp_path):
    for key in ("distil.losses[0].weight", "distil.losses.0.weight"):
        assert minimal.recipe(tmp_path, f"{key}=0.25").distil.losses[0].weight == 0.25
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, "distil.losses[2].weight=0.25")
    assert "the list has no item `distil.losses.2`; it has 1 item, counted from 0" in str(error.value)


@pytest.mark.parametrize("nonsense", ["seeds[]=1", "[0]=1"])
def test_an_index_needs_a_list_and_a_number(tmp_path, nonsense):
    with pytest.raises(UserError, match=r"write it as `section.key=value`"):
        minimal.recipe(tmp_path, nonsense)


@pytest.mark.parametrize(
    "text", ["distil.training.hub_token=[SECRET", "teachers.t.api_key={SECRET", "hub_token:SECRET", "a.password SECRET"]
)
def test_a_secret_that_cannot_be_parsed_is_not_repeated(tmp_path, text):
    with pytest.raises(UserError) as error:
        minimal.recipe(tmp_path, text)
    assert "SECRET" not in str(error.value)
