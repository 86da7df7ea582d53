import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError
from potstill.models.from_scratch import from_scratch
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.up_to_date import is_done
from potstill.recipe import load_recipe
from potstill.recipe.step import Step
from potstill.report import number_format
from potstill.training.fit import DistilTrainer
from tiny import tokenizer, toy_recipe

MINI = "babyllama-mini"


def _recipe(folder, *overrides):
    return toy_recipe(folder, "control=null", "seeds=[0]", *overrides, recipe=MINI)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mini")


@pytest.fixture(scope="module")
def run(folder):
    made = Run(folder / "run")
    run_recipe(_recipe(folder), made)
    return made


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "gpt2"), ("llama", "llama")])
def test_a_teacher_is_a_plain_folder_of_its_own_kind(run, name, kind):
    model = AutoModelForCausalLM.from_pretrained(run.path("pretrain") / name / "model")
    assert model.config.model_type == kind
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(run.path("pretrain") / name / "model")) == 300
    summary = run.manifest(Step("pretrain", name=name))["summary"]
    assert summary["parameters"] == model.num_parameters()
    log = [json.loads(line) for line in (run.path("pretrain") / name / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == summary["steps"] == 5
    assert summary["kept_step"] in range(1, 6)


def test_the_ensemble_teaches_and_each_teacher_is_logged_apart(run):
    log = [json.loads(line) for line in (run.path("distil/seed-0") / "log.jsonl").read_text().splitlines()]
    assert {"cross_entropy", "forward_kl", "forward_kl/teacher0", "forward_kl/teacher1"} <= log[0].keys()
    assert log[0]["loss"] == pytest.approx(0.5 * log[0]["cross_entropy"] + 0.5 * log[0]["forward_kl"], rel=1e-3)


def test_the_student_is_compared_with_teachers_of_its_own_text(run):
    found = json.loads((run.path("evaluate") / "comparison.json").read_text())["paired"]
    assert list(dict.fromkeys(pair["b"] for pair in found)) == ["start", "teacher gpt2", "teacher llama"]
    of_teachers = {pair["metric"] for pair in found if pair["b"].startswith("teacher")}
    assert of_teachers == {"loss", "perplexity", "bits_per_byte", "blimp"}, "nobody is measured against itself"
    page = (run.path("report") / "index.html").read_text()
    assert all(number_format.minus(f"teacher {name}") in page for name in ("gpt2", "llama"))


def test_a_change_of_one_teacher_leaves_the_other(folder, run):
    changed = _recipe(folder, "pretrain.llama.seed=7")
    assert is_done(changed, run, Step("pretrain", name="gpt2"))
    assert not is_done(changed, run, Step("pretrain", name="llama"))
    weighted = _recipe(folder, "pretrain.llama.weight=7")
    assert is_done(weighted, run, Step("pretrain", name="llama")), "a weight is the student's business"


def test_a_teacher_that_was_trained_elsewhere_is_used_as_it_is(folder, run, tmp_path):
    theirs = run.path("pretrain") / "llama" / "model"
    before = {file.name: file.read_bytes() for file in theirs.iterdir()}
    (tmp_path / "tokenizer.json").write_bytes((run.path("tokenizer") / "tokenizer" / "tokenizer.json").read_bytes())
    given = {
        "tokenizer": {"file": str(tmp_path / "tokenizer.json")},
        "pretrain": {},
        "teachers": {"old": {"model": str(theirs)}},
        "distil.mix": "probabilities",
    }
    again = Run(tmp_path / "run")
    run_recipe(_recipe(folder, *(f"{key}={json.dumps(value)}" for key, value in given.items())), again, until="distil")
    assert {file.name: file.read_bytes() for file in theirs.iterdir()} == before


def test_a_student_can_be_pruned_from_a_teacher_that_is_trained_here(folder, run):
    start = {"start": "prune_layers", "from": "llama", "layers": 1}
    run_recipe(_recipe(folder, f"student={json.dumps(start)}"), run, until="student")
    pruned = AutoModelForCausalLM.from_pretrained(run.path("student") / "start")
    teacher = AutoModelForCausalLM.from_pretrained(run.path("pretrain") / "llama" / "model", dtype=torch.float32)
    assert torch.equal(pruned.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


def test_a_stopped_teacher_goes_on_to_the_same_weights(tmp_path, folder, monkeypatch):
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    recipe = _recipe(folder)
    run_recipe(recipe, whole, until="pretrain")
    steps, plain = [], DistilTrainer.training_step

    def training_step(self, *args):
        steps.append(self.state.global_step)
        if len(steps) == 9:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(DistilTrainer, "training_step", training_step)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, cut, until="pretrain")
    run_recipe(recipe, cut, until="pretrain")
    assert steps == [0, 1, 2, 3, 4, 0, 1, 2, 3, 2, 3, 4], "the first teacher is not trained again"
    for name in ("gpt2", "llama"):
        one, other = (made.path("pretrain") / name / "model" / "model.safetensors" for made in (whole, cut))
        assert one.read_bytes() == other.read_bytes()


def test_reduction_by_sequence_counts_each_position(tmp_path, folder):
    first = {}
    for reduction in ("token", "sequence"):
        run = Run(tmp_path / reduction)
        run_recipe(_recipe(folder, f"distil.reduction={reduction}", "distil.keep=last"), run, until="distil")
        log = (run.path("distil/seed-0") / "log.jsonl").read_text().splitlines()
        first[reduction] = json.loads(log[0])
    token, sequence = first["token"], first["sequence"]
    assert sequence["forward_kl"] == pytest.approx(token["forward_kl"], rel=1e-5), "the terms are logged unweighted"
    expected = 0.5 * token["cross_entropy"] + 0.5 * 32 * token["forward_kl"]
    assert sequence["loss"] == pytest.approx(expected, rel=1e-3)


PUBLISHED = {
    ("babyllama", "gpt2"): 704_928_768,
    ("babyllama", "llama"): 359_973_888,
    ("babyllama", None): 58_343_936,
    ("babyllama-2", "first"): 345_355_200,
    ("babyllama-2", "second"): 345_355_200,
    ("babyllama-2", None): 345_355_200,
}


@pytest.mark.parametrize(("recipe", "name"), PUBLISHED)
def test_sizes_are_the_published_ones(recipe, name):
    whole = load_recipe(recipe)
    config = whole.student.config if name is None else whole.pretrain[name].config
    model = from_scratch(config, "config", tokenizer(), whole.tokenizer.vocab_size, seed=0, device="meta")
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[recipe, name]


def test_a_configuration_that_makes_no_model_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"`pretrain\.llama\.config\.hiden_size`: LlamaConfig has no such field; did"):
        run_recipe(_recipe(folder, "pretrain.llama.config.hiden_size=3"), Run(tmp_path / "run"), until="pretrain")


def test_wrong_training_is_refused_before_anything_is_spent(folder, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"`pretrain\.llama\.training\.learning_rat`: is no field"):
        run_recipe(_recipe(folder, "pretrain.llama.training.learning_rat=3"), run)
    assert not run.path("tokenizer").exists()
