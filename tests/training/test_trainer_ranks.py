"""One batch of 8 equals two ranks of 4: the same weights and the same log, through gloo on the CPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import processes
import ranks
from toy_training import assert_equal

TESTS = Path(__file__).parents[1]


def train(folder):
    """Train all cases: in one process, and in two ranks."""
    torch.save(ranks.run(folder, ranks=1), folder / "one-rank.pt")
    processes.run_ranks(2, TESTS / "ranks.py", folder)


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once("ranks", train)


@pytest.fixture(scope="module")
def both(folder):
    return [torch.load(folder / f"{count}.pt", weights_only=True) for count in ("one-rank", "two-ranks")]


OF_BOTH = [
    "online",
    "accumulated",
    "silent",
    "tied",
    "teacher in bf16",
    "captured",
    "several",
    "several captured",
    "adapter",
    "packed",
    "clipped",
    "matched alone",
    "mixture",
    *(f"ragged {count}" for count in ranks.RAGGED),
    *(f"ragged and cut {count}" for count in ranks.RAGGED),
    "ragged and captured",
    "ragged and prompted",
    "by row",
    "ragged by row",
    "ragged and packed",
    "ragged stream",
    "ragged and captured spans",
    "across tokenizers",
    "across tokenizers by row",
    "turns across tokenizers by row",
    "ragged and captured turns",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        *OF_BOTH,
        *(f"{name}, sharded" for name in OF_BOTH),
        "matched",
        "written",
        "written turns across tokenizers",
        "streamed",
        "shuffled",
    ],
)
def test_two_ranks_are_one(both, case):
    alone, together = both
    (one, logged), (two, also_logged) = alone[case.removesuffix(", sharded")], together[case]
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
    assert not torch.equal(single["online"][0]["lm_head.weight"], single["silent"][0]["lm_head.weight"])
    written = [entry["on_policy/alm"] for entry in single["written turns across tokenizers"][1]]
    assert written
    assert min(written) > 0


@pytest.mark.slow
@pytest.mark.parametrize("student", ranks.STUDENTS)
def test_a_training_that_stopped_goes_on_to_the_same_weights_sharded_or_not(both, student):
    """The learning rate and the optimizer's moments, the order of the samples and the best weights are all kept."""
    for undisturbed, resumed in (found["stopped"][student] for found in both):
        assert_equal(resumed, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("student", ranks.STUDENTS)
def test_a_sharded_student_is_saved_as_one_rank_saves_it(both, folder, student):
    one, two = (folder / f"{student} by {count}" / "saved" for count in (1, 2))
    assert {file.name for file in two.iterdir()} == {file.name for file in one.iterdir()}
    for name in ("config.json", "generation_config.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    ours, theirs = (load_file(place / "model.safetensors") for place in (two, one))
    assert {name: weight.dtype for name, weight in ours.items()} == {name: one.dtype for name, one in theirs.items()}
    assert_equal(ours, theirs, tolerance=5e-6)
