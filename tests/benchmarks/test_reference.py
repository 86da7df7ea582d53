"""The check before timing: it passes potstill and the naive loss, and refuses known mistakes of others."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.checking import check, fill, passed
from benchmarks.peers import GKD, LIGER, NAIVE, TRL_CHUNKED, in_one_dtype, peers
from benchmarks.problem import Problem, make_problem
from benchmarks.reference import Checker, Errors
from benchmarks.table import Table
from benchmarks.timing import Times
from benchmarks.variants import Variant, ours
from potstill.losses.loss import Loss

KINDS = ("cross_entropy", "forward_kl", "reverse_kl", "jsd")
CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(48, 301, 32, request.param, CPU)


def losses_of(kind: str) -> tuple[Loss, ...]:
    return (Loss(kind, 0.5), Loss("cross_entropy", 0.5)) if kind != "cross_entropy" else (Loss(kind),)


@pytest.mark.parametrize("kind", KINDS)
def test_ours_and_the_naive_loss_pass(problem: Problem, kind: str) -> None:
    losses, checker = losses_of(kind), Checker(problem)
    naive = next(one for one in peers(losses, CPU) if one.name == NAIVE)
    for variant in (ours(losses, compile=False), naive):
        assert checker.errors(variant).refusal is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ours_passes_compiled(problem: Problem, kind: str) -> None:
    losses = losses_of(kind)
    assert Checker(problem).errors(ours(losses, compile=True)).refusal is None


@pytest.mark.parametrize("name", [GKD, TRL_CHUNKED, LIGER])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_installed_peers_pass(name: str, kind: str) -> None:
    variant = next((one for one in peers((Loss(kind),), CPU) if one.name == name), None)
    if variant is None:
        pytest.skip(f"{name} is not installed")
    assert Checker(make_problem(48, 301, 32, torch.float32, CPU)).errors(variant).refusal is None


def test_a_peer_that_wants_one_dtype_gets_it_under_autocast() -> None:
    # As in a step: autocast over fp32 weights of the student, beside a teacher in bf16.
    made = make_problem(48, 301, 32, torch.float32, CPU)
    teacher = made.teacher_hidden.bfloat16(), made.teacher_weight.bfloat16()
    problem = replace(made, autocast=True, teacher_hidden=teacher[0], teacher_weight=teacher[1])
    seen = []

    def strict(*given: Tensor) -> Tensor:
        *tensors, _ = given
        seen.append({one.dtype for one in tensors} | {torch.is_autocast_enabled("cpu")})
        hidden, weight, teacher_hidden, teacher_weight = tensors
        return kl((hidden @ weight.T).float(), (teacher_hidden @ teacher_weight.T).float())

    losses = (Loss("forward_kl"),)
    assert Checker(problem).errors(Variant("strict", losses, in_one_dtype(strict))).refusal is None
    assert seen == [{torch.float32, False}, {torch.bfloat16, False}]


def test_checking_leaves_the_problem_unchanged(problem: Problem) -> None:
    Checker(problem).errors(ours(losses_of("jsd"), compile=False))
    assert problem.hidden.grad is None
    assert problem.weight.grad is None


def mistaken(teach: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Problem], Tensor]:
    def loss(problem: Problem) -> Tensor:
        student = (problem.hidden @ problem.weight.T).float()
        return teach(student, (problem.teacher_hidden @ problem.teacher_weight.T).float())

    return loss


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")


def squared_in_the_value_only(student: Tensor, teacher: Tensor) -> Tensor:
    value = kl(student / 2, teacher / 2)
    return value + 3 * value.detach()


def divided_by_the_vocabulary(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="mean") * 4


def without_a_square(student: Tensor, teacher: Tensor) -> Tensor:
    return kl(student / 2, teacher / 2)


def top_k_renormalised(student: Tensor, teacher: Tensor) -> Tensor:
    kept, ids = (teacher / 2).topk(16)
    return 4 * kl((student / 2).log_softmax(-1).gather(1, ids), kept)


@pytest.mark.parametrize(
    "teach", [squared_in_the_value_only, divided_by_the_vocabulary, without_a_square, top_k_renormalised]
)
def test_a_mistaken_variant_is_refused(problem: Problem, teach: Callable[[Tensor, Tensor], Tensor]) -> None:
    losses = (Loss("forward_kl", temperature=2.0),)
    wrong = Variant("mistaken", losses, mistaken(teach))
    right = Variant("right", losses, mistaken(lambda s, t: 4 * kl(s / 2, t / 2)))
    failing = Variant("failing", losses, lambda problem: torch.zeros(()) / problem.missing)  # type: ignore[attr-defined]
    checked = check([wrong, right, failing], Checker(problem))
    assert passed(checked) == [right]
    table = Table("losses", ("variant", "ratio", "ms", "error"))
    fill(table, checked, Times({"right": [0.3, 0.2], "scale": [0.2, 0.1]}), ["scale"])
    assert table.rows[0][1].startswith("refused: misses the reference by ")
    assert table.rows[1][1] == "1.750 (2.000)"
    assert table.rows[2][1] == "failed: AttributeError: 'Problem' object has no attribute 'missing'"


def test_a_gradient_with_nan_is_refused() -> None:
    assert Errors(value=0.0, hidden=float("nan"), weight=0.0, bound=1e-4).refusal is not None


def test_one_wrong_gradient_is_found(problem: Problem) -> None:
    losses = (Loss("cross_entropy"),)

    def head_is_frozen_by_mistake(problem: Problem) -> Tensor:
        half = 0.5 * problem.weight + 0.5 * problem.weight.detach()
        return F.cross_entropy((problem.hidden @ half.T).float(), problem.labels)

    errors = Checker(replace(problem)).errors(Variant("half", losses, head_is_frozen_by_mistake))
    assert errors.value < errors.bound
    assert errors.hidden < errors.bound
    assert errors.weight == pytest.approx(0.5, rel=0.05)
    assert "weight gradient" in str(errors.refusal)
