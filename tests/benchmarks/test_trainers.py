"""Whole Trainer steps: every trainer of potstill runs, and is compared with the right peers."""

from pathlib import Path

import torch

from benchmarks import trainers
from benchmarks.models import Pair, Shape
from benchmarks.run import Settings
from benchmarks.trainers import DISTILLATION, GKD, PLAIN, peers_of, steps

ALL = [PLAIN, f"{GKD}, KL", f"{GKD}, JSD", f"{DISTILLATION}, KL", f"{DISTILLATION}, JSD"]


def test_a_trainer_is_compared_with_those_of_its_loss() -> None:
    assert peers_of("potstill, KL + CE", ALL) == [f"{GKD}, KL", f"{DISTILLATION}, KL"]
    assert peers_of("potstill, compiled, JSD + CE", ALL) == [f"{GKD}, JSD", f"{DISTILLATION}, JSD"]
    assert peers_of("potstill, CE", ALL) == peers_of("potstill, compiled, captured KL + CE", ALL) == [PLAIN]
    assert peers_of(PLAIN, ALL) == []


def test_every_row_has_its_figures(tmp_path: Path, monkeypatch: object) -> None:
    pair = Pair(Shape(300, 64, 1, 1, rows=2, length=16), torch.float32, torch.device("cpu"))
    monkeypatch.setattr(trainers, "missing", lambda: ["TRL", "Liger"])  # type: ignore[attr-defined]
    table, measured = steps(pair, Settings(pair.device, quick=True, rounds=1), tmp_path)
    names = ["potstill, CE", "potstill, KL + CE", "potstill, JSD + CE", "potstill, captured KL + CE"]
    assert [row[0] for row in table.rows] == [PLAIN, *names]
    assert all(float(row[1].split()[0]) > 0 and int(row[3]) >= 0 for row in table.rows)
    # TRL is left out, so a divergence has no peer.
    assert [one.where.split(", fp32")[0] for one in measured] == [names[0], names[3]]
