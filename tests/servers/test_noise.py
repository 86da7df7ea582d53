import json

import numpy as np
import pytest

from potstill.servers.api import ScoredRow
from potstill.servers.noise import NoiseFloor, as_json, difference, from_json, probe_rows
from tiny import tokenizer


def row(ids, log_probs, labels) -> ScoredRow:
    return ScoredRow(np.array(ids), np.array(log_probs, float), np.array(labels, float))


def test_the_difference_is_over_what_both_answers_have():
    one = [row([[3, 5]], [[-1, -2]], [-4])]
    other = [row([[5, 9]], [[-2.25, -3]], [-4.75])]
    assert difference(one, other) == NoiseFloor(largest=0.75, mean=0.5)
    assert difference(one, one) == NoiseFloor(0.0, 0.0)


def test_impossible_tokens_are_no_difference():
    impossible = [row([[3, 5]], [[-1, -np.inf]], [-np.inf])]
    assert difference(impossible, impossible) == NoiseFloor(0.0, 0.0)


@pytest.mark.parametrize(("noise", "mean", "allowed"), [(0.0, 0.005, True), (0.0, 0.02, False), (0.02, 0.07, True)])
def test_only_more_than_the_noise_is_a_change(noise, mean, allowed):
    assert NoiseFloor(1.0, noise).allows(mean) is allowed


def test_answers_are_written_down_and_read_again():
    given = [row([[3, 5], [1, 2]], [[-1, -np.inf], [-0.5, -2.123456789]], [-4, -np.inf])]
    found = from_json(json.loads(json.dumps(as_json(given))))
    assert (found[0].ids == given[0].ids).all()
    assert difference(found, given).largest < 1e-6


@pytest.mark.parametrize("longest", [None, 512, 5])
def test_probes_fit_into_the_server(longest):
    rows = probe_rows(tokenizer(), longest)
    assert len(rows) == 4
    assert all(1 < len(one) <= (longest or 64) for one in rows)
