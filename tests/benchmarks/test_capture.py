"""The section `capture` in small."""

import numpy as np
import pytest
import torch

from benchmarks import capture
from benchmarks.aims import AIMS
from benchmarks.run import Settings


def test_the_section_measures_captures_keys_and_batches(monkeypatch):
    monkeypatch.setattr(capture, "SAMPLES", 4)
    monkeypatch.setattr(capture, "LENGTH", 8)
    monkeypatch.setattr(capture, "BATCHES", (2, 4))
    monkeypatch.setattr(capture, "CORPORA", ((8, 64),))
    tables, measured = capture.section(Settings(torch.device("cpu"), quick=True, rounds=2))
    assert [cells[0] for cells in tables[0].rows] == ["capture", "forward, 2 at a time", "forward, 4 at a time"]
    assert [cells[0] for cells in tables[1].rows] == ["8 tokens"]
    assert [cells[0] for cells in tables[2].rows] == ["8 tokens, lists", "8 tokens, arrays"]
    assert {one.key for one in measured} == {"capture", "keys", "collator"} <= {aim.key for aim in AIMS}
    assert all(one.median > 0 for one in measured)


def test_the_collator_is_timed_over_every_sample_as_lists_and_as_arrays(monkeypatch):
    monkeypatch.setattr(capture, "CORPORA", ((8, 16 * 100),))
    collated = []
    plain = capture.Collator.__call__
    monkeypatch.setattr(capture.Collator, "__call__", lambda self, rows: collated.append(rows) or plain(self, rows))
    capture._batches(Settings(torch.device("cpu"), quick=True, rounds=1))
    # 100 samples, twice each: the first round is not counted.
    assert [len(rows) for rows in collated] == [64, 36] * 4
    kinds = [type(rows[0]["input_ids"]) for rows in collated]
    assert kinds == [list] * 4 + [np.ndarray] * 4


def test_a_rate_is_that_of_the_counted_rounds(monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(capture.time, "process_time", lambda: next(clock))
    rows = capture._samples(100, samples=1000, length=30)
    assert capture._rate(rows, lambda: None, rounds=2) == pytest.approx((0.01, 0.015))
