"""Rounds: every action runs equally often, in orders that differ."""

import torch

from benchmarks.timing import measure


def test_everything_runs_once_a_round_and_once_before() -> None:
    seen: list[str] = []
    actions = {name: (lambda name=name: seen.append(name)) for name in "abcdef"}
    times = measure(actions, 4, torch.device("cpu"))
    assert {name: len(took) for name, took in times.seconds.items()} == dict.fromkeys("abcdef", 4)
    rounds = [seen[at : at + 6] for at in range(0, len(seen), 6)]
    assert len(rounds) == 5
    assert all(sorted(one) == list("abcdef") for one in rounds)
    assert len({tuple(one) for one in rounds}) > 2
