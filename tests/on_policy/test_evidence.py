"""The rollouts that are kept: a bounded number, spread evenly, the same after a resume."""

from itertools import pairwise

import pytest
import torch

from potstill.files.jsonl_log import read_jsonl
from potstill.on_policy.evidence import MOST_ROLLOUTS, Evidence
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import Rollout

ONE = Rollout(SamplePrompt([5, 6]), [8, 0], True, 3)
SCORES = {"entropy": torch.tensor([1.23456789, 0.5, 2.0, 3.0])}


@pytest.mark.parametrize("steps", [1, 10, MOST_ROLLOUTS, 10 * MOST_ROLLOUTS + 3])
@pytest.mark.parametrize("first", [0, 7])
def test_the_number_is_bounded_and_the_steps_are_spread(steps, first):
    evidence = Evidence(first, first + steps)
    wanted = [evidence.wanted(step) for step in range(first, first + steps)]
    assert 0.5 * MOST_ROLLOUTS <= sum(wanted) <= MOST_ROLLOUTS
    gaps = [at for at, count in enumerate(wanted) if count]
    assert gaps[0] == 0
    assert all(later - before == gaps[1] for before, later in pairwise(gaps))


def test_a_row_has_a_number_for_each_token_and_comes_back(tmp_path):
    evidence = Evidence(0, 4)
    evidence.add(4, [ONE, Rollout(SamplePrompt([7]), [9, 9], False, 4)], SCORES)
    evidence.save(tmp_path / "rows.jsonl.gz")
    first, second = read_jsonl(tmp_path / "rows.jsonl.gz")
    assert first == {
        "step": 5,
        "written_at": 4,
        "prompt_ids": [5, 6],
        "ids": [8, 0],
        "stopped": True,
        "entropy": [1.2346, 0.5],
    }
    assert second["entropy"] == [2.0, 3.0]
    again = Evidence(0, 4)
    again.load(tmp_path / "rows.jsonl.gz")
    again.save(tmp_path / "again.jsonl.gz")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == (tmp_path / "rows.jsonl.gz").read_bytes()
