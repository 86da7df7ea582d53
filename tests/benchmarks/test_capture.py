"""The section `capture` in small."""

import torch

from benchmarks import capture
from benchmarks.aims import AIMS
from benchmarks.run import Settings


def test_the_section_measures_captures_and_keys(monkeypatch):
    monkeypatch.setattr(capture, "SAMPLES", 4)
    monkeypatch.setattr(capture, "LENGTH", 8)
    monkeypatch.setattr(capture, "BATCHES", (2, 4))
    monkeypatch.setattr(capture, "KEYS", ((8, 64),))
    tables, measured = capture.section(Settings(torch.device("cpu"), quick=True, rounds=2))
    assert [cells[0] for cells in tables[0].rows] == ["capture", "forward, 2 at a time", "forward, 4 at a time"]
    assert [cells[0] for cells in tables[1].rows] == ["8 tokens"]
    assert {one.key for one in measured} == {"capture", "keys"} <= {aim.key for aim in AIMS}
    assert all(one.median > 0 for one in measured)
