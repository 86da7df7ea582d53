"""What a recipe may say of a pruned student."""

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
def test_a_pruned_student_measures_what_it_goes_by(tmp_path, given, samples):
    assert student(tmp_path, given).measured_samples == samples


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (LAYERS | {"by": "loss"}, "`student.by`: says what `rule: importance` goes by; add that, or remove it"),
        (LAYERS | {"importance_samples": 3}, "`student.importance_samples`: are for `rule: importance`"),
        (LAYERS | {"layers": [0, 1], "rule": "importance"}, "`student.layers`: must say how many"),
        (LAYERS | {"rule": "importance", "importance_samples": 0}, "`student.importance_samples`: must be greater"),
        (LAYERS | {"rule": "best"}, "`student.rule`: must be 'spread', 'ends' or 'importance', not 'best'"),
        (WIDTH, "`student.start`: `prune_width` needs one of `heads`, `key_value_heads`, `intermediate_size`"),
        (WIDTH | {"layers": 2}, "`student.start`: `prune_width` needs one of"),
        (WIDTH | {"heads": 0}, "`student.heads`: must be greater than 0, not 0"),
        (WIDTH | {"heads": 2, "by": "hidden"}, "`student.by`: says what `rule: importance` goes by"),
        (WIDTH | {"heads": 2, "rule": "importance"}, "`student.layers`: must say how many with `rule: importance`"),
        (WIDTH | {"ffn": 2}, "`student.ffn`: unknown key"),
        (WIDTH | {"heads": 2, "from": "u"}, "`student.from`: 'u' is none of the teachers, t"),
    ],
)
def test_what_says_nothing_or_two_things_is_refused(tmp_path, given, sentence):
    with pytest.raises(UserError) as told:
        student(tmp_path, given)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)
