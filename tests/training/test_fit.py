"""Fit: one training in a step's folder, and the weights that it keeps."""

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForCausalLM

from potstill.errors import UserError
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from tiny import SEQUENCE_LENGTH, toy_recipe

STEPS = 5


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """A run that was stopped after the last step of its training, while the outputs were being hashed."""
    run, recipe = Run(tmp_path / "run"), toy_recipe(tmp_path, "control=null")
    with monkeypatch.context() as patch:
        plain = Run.finish

        def finish(self, step, *rest):
            if step.stage == "distil":
                raise KeyboardInterrupt
            plain(self, step, *rest)

        patch.setattr(Run, "finish", finish)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run)
    return run, recipe


def test_a_training_that_had_ended_is_not_done_again(ended, monkeypatch):
    run, recipe = ended
    before = (run.path("distil/seed-0") / "student" / "model.safetensors").stat()
    monkeypatch.setattr("potstill.training.fit.DistilTrainer", None)
    run_recipe(recipe, run, until="distil")
    assert (run.path("distil/seed-0") / "student" / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert run.manifest("distil/seed-0")["summary"]["steps"] == STEPS


@pytest.mark.parametrize("name", ["student/model.safetensors", "log.jsonl", "ended.json"])
def test_a_training_whose_end_was_damaged_is_done_again(ended, capsys, name):
    run, recipe = ended
    student, file = (run.path("distil/seed-0") / part for part in ("student/model.safetensors", name))
    before = student.read_bytes()
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    run_recipe(recipe, run, until="distil")
    assert "made again" in capsys.readouterr().out
    assert student.read_bytes() == before


@torch.no_grad()
def _cross_entropy(model, rows):
    """Nats per token of sequences of one length."""
    ids = torch.tensor(rows["input_ids"])
    return model(input_ids=ids, labels=ids).loss.item()


def test_the_best_weights_are_kept_and_they_are_the_best(tmp_path):
    run, settings = Run(tmp_path / "run"), ["distil.keep=best", "corpus.validation=6"]
    # Four samples, thirty times: the held-out loss rises in the end, and the last weights are not the best.
    rising = ["corpus.train_tokens=128", "distil.training.max_steps=30", "distil.training.learning_rate=0.02"]
    run_recipe(toy_recipe(tmp_path, *settings, *rising), run, until="distil")
    summary = run.manifest("distil/seed-0")["summary"]
    assert 1 <= summary["kept_step"] < summary["steps"] == 30
    student = AutoModelForCausalLM.from_pretrained(run.path("distil") / "student").eval()
    validation = load_from_disk(run.path("corpus") / "validation")
    assert len(validation) == 6
    assert {len(ids) for ids in validation["input_ids"]} == {SEQUENCE_LENGTH}
    assert _cross_entropy(student, validation) == pytest.approx(summary["validation_loss"], rel=1e-4)
    last = Run(tmp_path / "last")
    run_recipe(toy_recipe(tmp_path, *settings, *rising, "distil.keep=last"), last, until="distil")
    ended = AutoModelForCausalLM.from_pretrained(last.path("distil") / "student").eval()
    assert _cross_entropy(student, validation) < _cross_entropy(ended, validation)


def test_nothing_to_choose_from_is_refused(tmp_path):
    overrides = ["distil.keep=best", "corpus.validation=6", "distil.training.save_strategy=no"]
    with pytest.raises(UserError, match=r"`distil.training.save_strategy: no` saves nothing to choose from"):
        run_recipe(toy_recipe(tmp_path, *overrides), Run(tmp_path / "run"), until="distil")
