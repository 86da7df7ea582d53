"""Stores that differ in a known way are told apart by as much."""

import numpy as np
import pytest
import torch

from experiments.served_capture import apart, bytes_of, differing_files, keys_of
from potstill.losses.teacher_target import SparseTarget
from potstill.targets import Provenance, StoreSpec, StoreWriter, make_codec

KEYS = [bytes([number]) * 16 for number in range(4)]


def store(folder, moved=0.0):
    """Four samples of two tokens each; a number moves the first log-probability of the first token."""
    kept = torch.tensor([[0.5, 0.25]]).repeat(8, 1).log()
    kept[0, 0] -= moved
    target = SparseTarget(torch.tensor([[3, 5]] * 8), kept, torch.log1p(-kept.exp().sum(-1)))
    codec = make_codec("top_k", vocabulary=16, k=2, bits=32, temperatures=[1.0])
    spec = StoreSpec(folder, codec, Provenance("big", "one", "tokens", "none"))
    with StoreWriter(spec, KEYS, np.full(4, 2)) as writer:
        for _ in writer.pending(4):
            writer.write(target)
    return folder


def test_a_store_does_not_differ_from_itself(tmp_path):
    one, other = store(tmp_path / "one"), store(tmp_path / "other")
    assert keys_of(one) == KEYS
    assert apart(one, other) == {"same_ids": 1.0, "mean": 0.0, "largest": 0.0, "mean_tail": 0.0, "records": 0.0}
    assert differing_files(one, other) == []


def test_one_other_record_is_told(tmp_path):
    one, other = store(tmp_path / "one"), store(tmp_path / "other", moved=0.25)
    found = apart(one, other)
    assert found["records"] == pytest.approx(1 / 8)
    assert found["largest"] == pytest.approx(0.25)
    assert found["mean"] == pytest.approx(0.25 / 16)
    assert found["mean_tail"] == pytest.approx((0.5 - 0.5 * np.exp(-0.25)) / 8, rel=1e-4)
    assert differing_files(one, other) == ["00000.index", "00000.records"]
    assert bytes_of(one) == bytes_of(other) > 0
