"""One batch of 8 equals two ranks of 4: the same weights and the same log, through gloo on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ranks
from toy_training import assert_equal

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(TESTS / "ranks.py"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*launch, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return ranks.run(folder, ranks=1), torch.load(folder / "two-ranks.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "plain",
        "accumulated",
        "silent",
        "tied",
        "captured",
        "matched",
        "matched alone",
        "sharded",
        "sharded and tied",
        "streamed",
        "mixture",
        "shuffled",
    ],
)
def test_two_ranks_are_one(both, case):
    (one, logged), (two, also_logged) = (found[case] for found in both)
    assert_equal(two, one, tolerance=5e-6)
    assert len(logged) == len(also_logged)
    for ours, theirs in zip(logged, also_logged, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)


@pytest.mark.slow
def test_an_evaluation_counts_no_sample_twice(both):
    one, two = (found["evaluated"] for found in both)
    assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_streamed_samples_are_evaluated_by_one_rank_alone(both):
    one, two = (found["refused"] for found in both)
    assert one == ""
    assert "2 ranks would count some of them twice" in two


@pytest.mark.slow
def test_the_ranks_did_learn(both):
    single, _ = both
    assert not torch.equal(single["plain"][0]["lm_head.weight"], single["silent"][0]["lm_head.weight"])
