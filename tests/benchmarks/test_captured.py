"""Losses against sparse targets: potstill and the peers that keep the tail pass, and those that lose it are refused."""

from dataclasses import replace

import pytest
import torch

from benchmarks.captured import LOSSES, peers
from benchmarks.problem import Problem, make_problem
from benchmarks.reference import Checker
from benchmarks.variants import ours
from potstill.losses.teacher_target import SparseTarget
from potstill.targets.codecs.top_k import log_sum_exp, log_tail, top_k


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def problem(request: pytest.FixtureRequest) -> Problem:
    whole = make_problem(48, 301, 32, request.param, torch.device("cpu"))
    logits = (whole.teacher_hidden @ whole.teacher_weight.T).float()
    kept, ids = top_k(logits, 16)
    tail = log_tail(kept, log_sum_exp(logits.scatter(1, ids, -torch.inf), 1.0), 1.0)
    return replace(whole, captured=SparseTarget(ids, logits.log_softmax(-1).gather(1, ids), tail))


def test_ours_passes(problem: Problem) -> None:
    assert Checker(problem).errors(ours(LOSSES, compile=False)).refusal is None


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("scattered to a dense target", True),
        ("DistillKit's sparse loss, re-stated", True),
        ("the same, missing mass as zero", False),
        ("top-k renormalised", False),
    ],
)
def test_a_variant_that_loses_the_tail_is_refused(problem: Problem, name: str, is_right: bool) -> None:
    variant = next(one for one in peers() if one.name == name)
    assert (Checker(problem).errors(variant).refusal is None) == is_right
