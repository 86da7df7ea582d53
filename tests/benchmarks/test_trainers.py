"""Whole Trainer steps: every trainer of potstill runs, and is compared with the right peers."""

from pathlib import Path

import pytest
import torch
from transformers.models.llama import modeling_llama

from benchmarks import trainers
from benchmarks.models import Pair, Shape
from benchmarks.run import Settings
from benchmarks.timing import Ratio
from benchmarks.trainers import DISTILLATION, GKD, PLAIN, Trained, memory_of_ours, own_kernels, peers_of, steps

ALL = [PLAIN, f"{GKD}, KL", f"{GKD}, JSD", f"{DISTILLATION}, KL", f"{DISTILLATION}, JSD"]


def test_a_trainer_is_compared_with_those_of_its_loss() -> None:
    assert peers_of("potstill, KL + CE", ALL) == [f"{GKD}, KL", f"{DISTILLATION}, KL"]
    assert peers_of("potstill, compiled, JSD + CE", ALL) == [f"{GKD}, JSD", f"{DISTILLATION}, JSD"]
    assert peers_of("potstill, CE", ALL) == peers_of("potstill, compiled, captured KL + CE", ALL) == [PLAIN]
    assert peers_of(PLAIN, ALL) == []


def small_pair() -> Pair:
    return Pair(Shape(300, 64, 1, 1, rows=2, length=16), torch.float32, torch.device("cpu"))


def test_every_row_has_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "missing", lambda: ["TRL", "Liger"])
    pair = small_pair()
    *before, (table, measured) = steps(pair, Settings(pair.device, quick=True, rounds=1), tmp_path)
    names = ["potstill, CE", "potstill, KL + CE", "potstill, JSD + CE", "potstill, captured KL + CE"]
    assert [row[0] for row in table.rows] == [PLAIN, *names]
    assert all(float(row[1].split()[0]) > 0 and int(row[3]) >= 0 for row in table.rows)
    # TRL is left out, so a divergence has no peer.
    assert [one.where.split(", fp32")[0] for one in measured] == [names[0], names[3]]
    assert [len(earlier.rows) for earlier, _ in before] == [1, 2, 3, 4], "a run that is cut off keeps what it has"


def test_a_trainer_is_not_compared_before_all_its_peers_are_measured() -> None:
    names = [PLAIN, "potstill, KL + CE", f"{GKD}, KL", f"{DISTILLATION}, KL"]
    trained = Trained(names, {names[1]: [1.0], names[2]: [2.0]})
    assert trained.over_peers(names[1]) is None
    trained.seconds[names[3]] = [4.0]
    assert trained.over_peers(names[1]) == Ratio(0.5, 0.5)


def test_only_whole_rounds_are_compared() -> None:
    trained = Trained(["a", "b"], {"b": [1.0, 2.0], "a": [3.0]})
    assert trained.times.seconds == {"a": [3.0], "b": [1.0]}


def test_a_peer_that_fails_is_named_and_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        built.append("once")
        raise ValueError("no such\nkernel")

    built: list[str] = []
    pair = small_pair()
    builders = trainers.trainers(pair, Settings(pair.device, quick=True, rounds=1), tmp_path)
    monkeypatch.setattr(trainers, "trainers", lambda *_: {PLAIN: builders[PLAIN], f"{GKD}, KL": failing})
    *_, (table, _) = steps(pair, Settings(pair.device, quick=True, rounds=2), tmp_path)
    assert [row[:2] for row in table.rows][1] == (f"{GKD}, KL", "failed: ValueError: no such")
    assert built == ["once"]


def test_what_a_trainer_replaces_in_transformers_is_put_back() -> None:
    before = modeling_llama.apply_rotary_pos_emb
    with own_kernels():
        modeling_llama.apply_rotary_pos_emb = None
    assert modeling_llama.apply_rotary_pos_emb is before


def test_memory_is_told_beside_that_of_trainer() -> None:
    memory = {"potstill, CE": 105.0, PLAIN: 100.0, "potstill, KL + CE": 114.0, f"{GKD}, KL": 300.0}
    assert memory_of_ours(memory) == f" potstill's peaks lie 5% to 14% above that of `{PLAIN}`."
    below = memory | {"potstill, CE": 90.0, "potstill, KL + CE": 95.0}
    assert memory_of_ours(below) == f" potstill's peaks lie 5% to 10% below that of `{PLAIN}`."
    assert "between 20% below and 5% above" in memory_of_ours(memory | {"potstill, KL + CE": 80.0})
    assert memory_of_ours({"potstill, CE": 1.0}) == ""
