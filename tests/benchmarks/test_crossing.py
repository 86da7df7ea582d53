"""Groups of tokens, the definitions that losses across tokenizers are checked against, and who meets them."""

from functools import cache

import pytest
import torch

from benchmarks.crossing import Size, make_text
from benchmarks.crossing_models import CrossingPair, CrossingProblem
from benchmarks.crossing_variants import GOLD, CrossingChecker, crossing, peer
from benchmarks.gold import BAYESIAN, OBSERVED, groups_of, is_here, reads_the_same
from benchmarks.models import Shape
from tiny import documents

SIZES = Size(300, 400, Shape(400, 64, 1, 1, rows=2, length=24))
gold_is_here = pytest.mark.skipif(not is_here(), reason="TRL is not installed")


@cache
def problem(dtype: torch.dtype = torch.float32) -> CrossingProblem:
    text = make_text(SIZES, documents(60, seed=5))
    return CrossingPair(SIZES.shape, (SIZES.ours, SIZES.theirs), text, dtype, torch.device("cpu")).problem


def test_groups_end_where_both_have_a_token_that_ends() -> None:
    assert groups_of([1, 3, 6], [2, 3, 4, 6]) == ([[1, 2], [3]], [[1, 2], [3, 4]])


def test_a_group_of_unequal_tokens_compares_different_texts() -> None:
    # One token of three bytes, and tokens of one and two bytes; then one token of each.
    assert reads_the_same([3, 4], [1, 3, 4], OBSERVED) == 0.5
    assert reads_the_same([3, 4], [1, 3, 4], BAYESIAN) == 0.5
    # The first tokens end at the same byte, and the last ones begin at others.
    assert reads_the_same([1, 4], [1, 2, 4], OBSERVED) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["alm", "uld"])
def test_our_losses_are_their_definitions(kind: str, dtype: torch.dtype) -> None:
    assert CrossingChecker(problem(dtype)).errors(crossing(kind)).refusal is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_ours_is_its_definition(dtype: torch.dtype) -> None:
    assert CrossingChecker(problem(dtype)).errors(crossing("alm", compile=True)).refusal is None


@gold_is_here
def test_gold_is_what_it_documents_with_its_second_merge_and_not_as_it_comes() -> None:
    checker = CrossingChecker(problem())
    assert checker.errors(peer(BAYESIAN)).refusal is None
    assert checker.errors(peer(OBSERVED)).refusal is not None


@gold_is_here
@pytest.mark.parametrize("strategy", GOLD)
def test_a_wrong_definition_is_found(strategy: str) -> None:
    other = {OBSERVED: BAYESIAN, BAYESIAN: OBSERVED}[strategy]
    checker = CrossingChecker(problem())
    checker.expected = lambda variant: CrossingChecker(problem()).expected(peer(other))  # type: ignore[method-assign]
    assert checker.errors(peer(strategy)).refusal is not None
