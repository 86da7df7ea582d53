import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.training.trainer import DistilTrainer
from tiny import toy_recipe


def _first(run, step):
    return json.loads((run.path(step) / "log.jsonl").read_text().splitlines()[0])


def test_the_control_starts_where_the_student_does(run):
    # The same weights on the same first samples: the same cross-entropy, but for the order of the sums.
    for seed in range(3):
        student, control = (_first(run, f"{stage}/seed-{seed}") for stage in ("distil", "control"))
        assert student["cross_entropy"] == pytest.approx(control["cross_entropy"], rel=1e-6)


def test_the_control_has_no_teacher(run):
    first = _first(run, "control/seed-0")
    assert "forward_kl" not in first
    assert first["loss"] == pytest.approx(first["cross_entropy"], rel=1e-6)


def test_the_control_sees_the_student_s_samples_in_the_student_s_order(tmp_path, monkeypatch):
    seen: dict[str, list] = {}
    plain = DistilTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        seen.setdefault(self.args.output_dir, []).append(inputs["input_ids"].clone())
        return plain(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(DistilTrainer, "compute_loss", compute_loss)
    # More steps than an epoch has, so that the second order of samples is seen as well.
    cut = ("corpus.train_tokens=512", "distil.training.max_steps=9", "seeds=[3]")
    run_recipe(toy_recipe(tmp_path, *cut), Run(tmp_path / "run"), until="control")
    run_recipe(toy_recipe(tmp_path, *cut), Run(tmp_path / "run"), until="distil")
    student, control = (next(ids for folder, ids in seen.items() if name in folder) for name in ("distil", "control"))
    assert len(student) == 9
    assert all(map(torch.equal, student, control))
    assert not torch.equal(student[0], student[4])


CONSTANT = ["distil.training.lr_scheduler_type=constant", "distil.training.warmup_steps=0"]


def test_the_control_may_train_otherwise(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control.training.learning_rate=0.125", *CONSTANT), run, until="control")
    log = (run.path("control/seed-0") / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["learning_rate"] for line in log} == {0.125}


def test_student_and_control_differ(run):
    student, control = (
        AutoModelForCausalLM.from_pretrained(run.path(f"{stage}/seed-0") / "student").state_dict()
        for stage in ("distil", "control")
    )
    assert any(not torch.equal(student[name], control[name]) for name in student)
