"""`student:` — the settings of a pruned student."""

import json

import pytest

import minimal
from potstill.errors import UserError

LAYERS = {"start": "prune_layers", "from": "t", "layers": 2}
WIDTH = {"start": "prune_width", "from": "t"}


def student(folder, given):
    return minimal.recipe(folder, f"student={json.dumps(given)}").student


@pytest.mark.parametrize(
    ("given", "samples"),
    [
        (LAYERS, 0),
        (LAYERS | {"rule": "ends"}, 0),
        (LAYERS | {"layers": [0, 1]}, 0),
        (LAYERS | {"rule": "importance"}, 32),
        (LAYERS | {"rule": "importance", "by": "hidden", "importance_samples": 4}, 4),
        (WIDTH | {"heads": 2}, 32),
        (WIDTH | {"hidden_size": 2, "layers": [0, 1], "importance_samples": 4}, 4),
        (WIDTH | {"intermediate_size": 2, "layers": 3, "rule": "importance", "by": "loss"}, 32),
    ],
)
def test_importance_is_measured_only_if_it_is_used(tmp_path, given, samples):
    assert student(tmp_path, given).measured_samples == samples


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (LAYERS | {"by": "loss"}, "`student.by`: needs `rule: importance`; add that, or remove `by`"),
        (LAYERS | {"importance_samples": 3}, "`student.importance_samples`: needs `rule: importance`"),
        (LAYERS | {"layers": [0, 1], "rule": "importance"}, "`student.layers`: must be a number"),
        (LAYERS | {"rule": "importance", "importance_samples": 0}, "`student.importance_samples`: must be greater"),
        (LAYERS | {"rule": "best"}, "`student.rule`: must be 'spread', 'ends' or 'importance', not 'best'"),
        (WIDTH, "`student.start`: `prune_width` needs one of `heads`, `key_value_heads`, `intermediate_size`"),
        (WIDTH | {"layers": 2}, "`student.start`: `prune_width` needs one of"),
        (WIDTH | {"heads": 0}, "`student.heads`: must be greater than 0, not 0"),
        (WIDTH | {"heads": 2, "by": "hidden"}, "`student.by`: needs `rule: importance`"),
        (WIDTH | {"heads": 2, "rule": "importance"}, "`student.layers`: must be a number with `rule: importance`"),
        (WIDTH | {"ffn": 2}, "`student.ffn`: unknown key"),
        (WIDTH | {"heads": 2, "from": "u"}, "`student.from`: 'u' is not one of the teachers: t"),
    ],
)
def test_missing_or_contradicting_settings_are_refused(tmp_path, given, sentence):
    with pytest.raises(UserError) as error:
        student(tmp_path, given)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["r", "lora_alpha", "lora_dropout"])
@pytest.mark.parametrize("value", ["8", True, -1, 10**12, None, [8]], ids=str)
def test_the_numbers_of_an_adapter_have_ranges(tmp_path, field, value):
    with pytest.raises(UserError, match=rf"`student.adapter.{field}`: must be a number from"):
        student(tmp_path, LAYERS | {"adapter": {field: value}})


def test_a_usual_adapter_is_taken(tmp_path):
    assert student(tmp_path, LAYERS | {"adapter": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}}).adapter
