"""The example: a script of one screen that ends in four losses."""

import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from potstill import DistilTrainer
from tiny import documents, llama, save_model

SCRIPT = Path(__file__).parents[2] / "examples" / "distil.py"
STEPS = 12


@pytest.fixture
def batches(monkeypatch):
    """The token ids of every training step, in order."""
    seen, step = [], DistilTrainer.training_step

    def training_step(self, model, inputs, num_items_in_batch=None):
        seen.append(inputs["input_ids"].clone())
        return step(self, model, inputs, num_items_in_batch)

    monkeypatch.setattr(DistilTrainer, "training_step", training_step)
    return seen


def test_student_and_control_learn_from_the_same_tokens(batches, tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(documents()), encoding="utf-8")
    teacher = str(save_model(llama(), tmp_path / "teacher"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), teacher, str(text), "--layers", "2", "--steps", str(STEPS)])
    runpy.run_path(str(SCRIPT), run_name="__main__")

    printed = re.findall(r"^(\w+) +([\d.]+|nan|inf) nats per token$", capsys.readouterr().out, re.MULTILINE)
    losses = {name: float(value) for name, value in printed}
    assert list(losses) == ["teacher", "start", "student", "control"]
    assert all(map(math.isfinite, losses.values()))
    assert losses["student"] < losses["start"]
    assert losses["control"] < losses["start"]
    assert losses["student"] != losses["control"]
    assert len(batches) == 2 * STEPS
    assert all(map(torch.equal, batches[:STEPS], batches[STEPS:]))


def test_it_fits_on_one_screen():
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 60
