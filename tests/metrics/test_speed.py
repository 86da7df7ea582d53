import json

import pytest

from potstill.metrics.speed import ModelSpeed, Speed

RATES = {"prefill": (100.0, 200.0, 300.0), "decode": (10.0, 20.0, 30.0)}
TWICE = {"prefill": (200.0, 300.0, 1200.0), "decode": (20.0, 40.0, 60.0)}
SPEED = Speed(
    (
        ModelSpeed("teacher", 100, 400, "float32", 500, RATES),
        ModelSpeed("student", 50, 200, "float32", 250, TWICE),
        ModelSpeed("control", 50, None, "float32", None, TWICE, "student"),
        ModelSpeed("other", 50, None),
    ),
    "cpu",
    3,
    4,
    16,
    8,
    ("A note.",),
)


def test_ratios_are_formed_within_each_round():
    assert SPEED.ratio("student", "prefill") == (2.0, 1.5, 4.0)
    assert SPEED.ratio("control", "decode") == (2.0, 2.0, 2.0)
    assert SPEED.ratio("teacher", "decode") == (1.0, 1.0, 1.0)
    assert SPEED.of("student").median("prefill") == 300.0


def test_without_a_measurement_there_is_no_ratio():
    assert SPEED.ratio("other", "decode") is None
    assert SPEED.ratio("nobody", "decode") is None
    assert SPEED.of("other").median("decode") is None
    alone = Speed(SPEED.models[1:], "cpu", 3, 4, 16, 8)
    assert alone.teacher is None
    assert alone.ratio("student", "decode") is None


def test_the_first_of_several_teachers_is_the_scale():
    teachers = tuple(ModelSpeed(f"teacher {name}", 1, 1, rates=rates) for name, rates in (("a", RATES), ("b", TWICE)))
    assert Speed(teachers, "cpu", 3, 4, 16, 8).ratio("teacher b", "decode") == (2.0, 2.0, 2.0)


def test_figures_survive_json_and_other_names():
    assert Speed.from_dict(json.loads(json.dumps(SPEED.to_dict()))) == SPEED
    assert SPEED.to_dict()["models"][1]["ratios"]["decode"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    renamed = SPEED.renamed({"student": "student base"})
    assert [one.model for one in renamed.models] == ["teacher", "student base", "control", "other"]
    assert renamed.models[2].measured_as == "student base"


@pytest.mark.parametrize("foreign", ["torch", "numpy", "transformers"])
def test_it_imports_nothing_heavy(foreign):
    import subprocess
    import sys

    code = f"import sys, potstill.metrics.speed; sys.exit({foreign!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
