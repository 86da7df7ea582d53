"""The number format of a run: decided once, kept, and read by every step that computes with a model."""

import json

import pytest
import torch

import minimal
from fake_stages import ALL
from potstill import device, distributed
from potstill.device import ProductTimes
from potstill.pipeline import forecast, precision, runner
from potstill.pipeline.precision import FILE, with_precision
from potstill.pipeline.run_folder import Run
from potstill.pipeline.status import describe
from potstill.planning.machine import described_machines
from potstill.planning.models import TYPICAL_WIDTHS

FAST = ProductTimes(256, 8, 8, fp32=(2.6, 2.6), bf16=(1.0, 1.0))
SLOW = ProductTimes(256, 8, 8, fp32=(1.0, 1.0), bf16=(1.7, 1.7))
UNCLEAR = ProductTimes(256, 8, 8, fp32=(2.0, 1.0), bf16=(1.0, 2.0))
LIGHT = ["teachers", "corpus"]
"""The steps that compute with no model."""


@pytest.fixture
def machine(monkeypatch):
    """Stands for a machine: the times of products on it, and the widths that were asked for."""
    asked = []

    def become(times):
        monkeypatch.setattr(device, "time_products", lambda *widths: asked.append(widths) or times)
        return asked

    monkeypatch.setattr(runner, "check_stages", lambda recipe: None)
    return become


@pytest.mark.parametrize(
    ("times", "line"),
    [
        (FAST, "number format: bf16, because fp32 takes 2.6 times as long here (cpu, "),
        (SLOW, "number format: fp32, because bf16 takes 1.7 times as long here (cpu, "),
        (UNCLEAR, "number format: fp32, because a short measurement did not tell clearly which"),
    ],
)
def test_a_cpu_is_measured_once_a_run(do, machine, capsys, times, line):
    asked = machine(times)
    do("precision=auto")
    assert line in capsys.readouterr().out
    assert line in describe(Run("run").folder).splitlines()[-1]
    kept = json.loads((Run("run").folder / FILE).read_text())
    assert kept["times"]["bf16"] == list(times.bf16)
    machine(SLOW if times is FAST else FAST)
    assert do("precision=auto") == [], "another machine does not change the format of a run"
    assert "number format" not in capsys.readouterr().out
    assert len(asked) == 1


@pytest.mark.parametrize("supported", [True, False])
def test_an_accelerator_is_asked_and_not_measured(do, monkeypatch, machine, supported):
    asked = machine(SLOW)
    monkeypatch.setattr(device, "device", lambda: torch.device("xpu", 0))
    monkeypatch.setattr(device, "accelerator_has_bfloat16", lambda: supported)
    # The forecast of a run measures the machine that it is on, which this one is not.
    monkeypatch.setattr(forecast, "machine_named", lambda *given: described_machines()["a100-80gb"])
    do("precision=auto")
    assert json.loads((Run("run").folder / FILE).read_text())["precision"] == ("bf16" if supported else "fp32")
    assert asked == []


def test_every_manifest_and_the_input_of_every_step_with_a_model_have_it(do, machine):
    machine(FAST)
    do("precision=auto")
    for name in ALL:
        manifest = Run("run").manifest(name)
        assert manifest["recipe"]["precision"] == "bf16"
        has_it = manifest["inputs"]["recipe"].get("precision") == "bf16"
        assert has_it is (name not in [*LIGHT, "report"]), name


def test_another_format_repeats_the_steps_with_a_model_and_names_itself(do, machine, capsys):
    machine(FAST)
    do("precision=auto")
    heavy = [name for name in ALL if name not in LIGHT]
    assert do("precision=fp32") == heavy
    assert "student: precision changed, so it begins anew" in capsys.readouterr().out
    assert do("precision=fp32") == []
    assert do("precision=auto") == heavy, "the run keeps what it measured"
    assert do("precision=bf16") == [], "the recipe asks for what was decided"


def test_a_capture_of_teachers_with_their_own_format_stays(do, machine):
    machine(FAST)
    own = "teachers.t.dtype=bfloat16"
    do("precision=auto", own)
    assert "capture" not in do("precision=fp32", own)


@pytest.mark.parametrize("damage", ["", "{}", None])
def test_a_damaged_decision_is_taken_from_the_steps_that_were_begun(do, machine, damage):
    machine(FAST)
    do("precision=auto", until="capture")
    file = Run("run").folder / FILE
    file.unlink() if damage is None else file.write_text(damage)
    machine(SLOW)
    assert with_precision(minimal.recipe(Run("run").folder.parent, "precision=auto"), Run("run")).precision == "bf16"
    assert "capture" not in do("precision=auto")
    assert json.loads(file.read_text())["precision"] == "bf16"


def test_a_damaged_decision_that_nothing_depends_on_is_taken_anew(do, machine):
    machine(FAST)
    do("precision=auto", until="corpus")
    (Run("run").folder / FILE).write_text("?")
    machine(SLOW)
    do("precision=auto")
    assert Run("run").manifest("student")["recipe"]["precision"] == "fp32"


def test_a_stopped_step_goes_on_in_its_format(do, machine, stages):
    def stop(work):
        raise KeyboardInterrupt

    machine(FAST)
    stages.during["capture"] = stop
    with pytest.raises(KeyboardInterrupt):
        do("precision=auto")
    (Run("run").folder / FILE).unlink()
    stages.during.clear()
    machine(SLOW)
    do("precision=auto")
    assert Run("run").manifest("capture")["attempts"] == 2
    assert Run("run").manifest("distil/seed-0")["recipe"]["precision"] == "bf16"


def test_the_saved_recipe_is_the_given_one(do, machine):
    machine(FAST)
    do("precision=auto", "distil.training.bf16=false")
    assert Run("run").recipe()["precision"] == "auto"
    assert "done" in describe(Run("run").folder)


@pytest.mark.parametrize(
    ("times", "said"),
    [(SLOW, "bf16, as the recipe says; it takes 1.7 times as long as fp32 here"), (FAST, None), (UNCLEAR, None)],
)
def test_bfloat16_that_is_asked_for_runs_and_says_what_it_costs(do, machine, capsys, times, said):
    machine(times)
    assert do("precision=bf16") == ALL
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("number format")]
    assert (told == []) if said is None else (said in told[0])
    do("precision=bf16")
    assert "number format" not in capsys.readouterr().out, "nothing was computed"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["precision=bf16", "teachers.t.dtype=float32"], "t"),
        (["precision=fp32", "teachers.t.dtype=float32"], None),
        (["precision=bf16"], None),
        (["precision=auto", "distil.training.bf16=true"], "t"),
        (["precision=auto", "distil.training.bf16=true", "teachers.t.dtype=bfloat16"], None),
    ],
)
def test_a_teacher_in_float32_beside_a_training_in_bfloat16_is_said(do, machine, capsys, overrides, named):
    machine(UNCLEAR)
    do(*overrides)
    line = "teachers in fp32: t; the student is trained in bf16"
    assert (line in capsys.readouterr().out) is (named is not None)


def test_ranks_take_the_first_one_s_decision(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "broadcast", lambda mine: "bf16" if mine is None else pytest.fail("it decided"))
    assert precision.decide(minimal.recipe(tmp_path, "precision=auto"), Run(tmp_path / "run")).precision == "bf16"
    assert not (tmp_path / "run").exists()


def test_the_largest_layer_that_is_known_is_measured(do, machine, tmp_path):
    asked = machine(FAST)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1}
    fields = {"model_type": "llama", "num_attention_heads": 4, **sizes}
    do("precision=auto", "pretrain=" + json.dumps({"p": {"config": fields}}), until="corpus")
    assert asked == [(48, 96)]


def test_a_run_of_unknown_models_measures_a_layer_of_a_typical_width(do, machine):
    asked = machine(FAST)
    do("precision=auto", until="corpus")
    assert asked == [TYPICAL_WIDTHS]


def test_a_real_decision_is_one_of_the_two(do):
    do("precision=auto", until="corpus")
    kept = json.loads((Run("run").folder / FILE).read_text())
    assert kept["precision"] in ("bf16", "fp32")
    assert min(kept["times"]["fp32"] + kept["times"]["bf16"]) > 0
