"""The peak of a piece of work is measured, and does not count what was freed before."""

import numpy as np
import pytest

from potstill.planning import peak_memory
from potstill.planning.peak_memory import STATUS, PeakMemory, measured

MIB = 2**20


@pytest.mark.skipif(not STATUS.exists(), reason="/proc is Linux's")
def test_each_piece_of_work_has_its_own_peak():
    with measured() as none:
        pass
    with measured() as much:
        np.ones(128 * MIB, dtype=np.uint8).sum()
    with measured() as little:
        np.ones(8 * MIB, dtype=np.uint8).sum()
    assert 120 * MIB < much.host - none.host < 160 * MIB
    assert little.host < much.host - 100 * MIB
    assert much.to_dict() == {"host": much.host, "device": None}


def test_without_a_reset_the_peak_is_told_only_if_it_grew(tmp_path, monkeypatch):
    monkeypatch.setattr(peak_memory, "RESET", tmp_path / "no" / "file")
    monkeypatch.setattr(peak_memory, "_greatest", lambda: 5)
    with measured() as found:
        pass
    assert found.host is None


def test_of_ranks_the_greatest_counts():
    peaks = [PeakMemory(3, None), PeakMemory(5, 7), PeakMemory(None, 2)]
    assert PeakMemory.largest(peaks) == PeakMemory(5, 7)
    assert PeakMemory.largest([PeakMemory()]) == PeakMemory()
