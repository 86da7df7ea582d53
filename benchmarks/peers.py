"""Peers: the naive loss, and other projects' losses, each called as its project calls it.

All get hidden states at supervised tokens only, which is less work than most of them have in their own project. A peer
that is not installed is left out, and the page names it.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.problem import Problem
from benchmarks.variants import Variant
from potstill.losses.loss import Loss

NAIVE, NAIVE_COMPILED = "naive", "naive, torch.compile"
GKD, GKD_AS_IS = "TRL GKD", "TRL GKD, logits as they come"
TRL_CHUNKED, LIGER, LIGER_COMPILED = "TRL chunked", "Liger chunked", "Liger chunked, compiled"
LIGER_KERNEL = "Liger kernel"
"""Liger's Triton kernels, on a GPU only."""

_BETA = {"forward_kl": 0.0, "jsd": 0.5, "reverse_kl": 1.0}


def peers(losses: tuple[Loss, ...], device: torch.device) -> list[Variant]:
    """All peers that can compute ``losses``. A peer without cross-entropy computes the divergence alone."""
    found = [Variant(NAIVE, losses, lambda problem: naive(problem, losses))]
    divergences = [loss for loss in losses if loss.needs_teacher]
    if not divergences:
        found += [Variant("Hugging Face", losses, hugging_face)]
        return found + list(_liger_cross_entropy(losses, device))
    alone = (Loss(divergences[0].kind),)
    found += [*_compiled_naive(losses), *_trl(alone, _BETA[alone[0].kind]), *_liger(losses, _BETA[alone[0].kind])]
    return found + list(_liger_kernels(losses, _BETA[alone[0].kind], device))


def missing() -> list[str]:
    """Peers that are not installed."""
    return [name for name, module in (("TRL", _gkd()), ("Liger", _liger_module())) if module is None]


def _logits(problem: Problem) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        teacher = problem.teacher_hidden @ problem.teacher_weight.T
    return problem.hidden @ problem.weight.T, teacher


def naive(problem: Problem, losses: tuple[Loss, ...]) -> Tensor:
    """The losses by torch's own functions, on whole logits in fp32."""
    student, teacher = _logits(problem) if any(loss.needs_teacher for loss in losses) else (_student(problem), None)
    return _naive_of_logits(student.float(), teacher, problem.labels, losses)


def _student(problem: Problem) -> Tensor:
    return problem.hidden @ problem.weight.T


def _naive_of_logits(student: Tensor, teacher: Tensor | None, labels: Tensor, losses: tuple[Loss, ...]) -> Tensor:
    total = student.new_zeros(())
    for loss in losses:
        if loss.kind == "cross_entropy":
            total = total + loss.weight * F.cross_entropy(student, labels)
        else:
            assert teacher is not None
            total = total + loss.weight * _naive_divergence(student, teacher.float(), loss)
    return total


def _naive_divergence(student: Tensor, teacher: Tensor, loss: Loss) -> Tensor:
    log_p = F.log_softmax(student / loss.temperature, dim=-1)
    if loss.kind == "forward_kl":
        value = F.kl_div(log_p, F.softmax(teacher / loss.temperature, dim=-1), reduction="batchmean")
    elif loss.kind == "reverse_kl":
        log_q = F.log_softmax(teacher / loss.temperature, dim=-1)
        value = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    else:
        assert loss.beta == 0.5
        p, q = log_p.exp(), F.softmax(teacher / loss.temperature, dim=-1)
        log_m = (0.5 * (p + q)).log()
        value = 0.5 * (F.kl_div(log_m, q, reduction="batchmean") + F.kl_div(log_m, p, reduction="batchmean"))
    return value * loss.temperature**2


def _compiled_naive(losses: tuple[Loss, ...]) -> Iterator[Variant]:
    of_logits = _compiled(losses)

    def loss(problem: Problem) -> Tensor:
        student, teacher = _logits(problem)
        return of_logits(student, teacher, problem.labels)

    yield Variant(NAIVE_COMPILED, losses, loss)


@cache
def _compiled(losses: tuple[Loss, ...]) -> Any:
    def of_logits(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return _naive_of_logits(student.float(), teacher, labels, losses)

    return torch.compile(of_logits)


def hugging_face(problem: Problem) -> Tensor:
    """The cross-entropy of every causal model in transformers."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits = _student(problem)
    loss: Tensor = ForCausalLMLoss(logits[None], None, logits.shape[1], shift_labels=problem.labels[None])
    return loss


@cache
def _gkd() -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.gkd.gkd_trainer import GKDTrainer
        from trl.trainer.distillation_trainer import _chunked_divergence_loss
    except ImportError:
        return None
    return GKDTrainer.generalized_jsd_loss, _chunked_divergence_loss


@cache
def _liger_module() -> Any:
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    except ImportError:
        return None
    return LigerFusedLinearJSDLoss


def _trl(losses: tuple[Loss, ...], beta: float) -> Iterator[Variant]:
    """The losses of GKDTrainer and DistillationTrainer. Neither has a cross-entropy."""
    if _gkd() is None:
        return
    generalized_jsd, chunked_divergence = _gkd()

    def gkd(problem: Problem, upcast: bool) -> Tensor:
        student, teacher = _logits(problem)
        if upcast:  # accelerate's mixed precision gives a model's outputs in fp32
            student, teacher = student.float(), teacher.float()
        loss: Tensor = generalized_jsd(student[None], teacher[None], problem.labels[None], beta=beta)
        return loss

    def chunked(problem: Problem) -> Tensor:
        hidden, teacher_hidden = problem.hidden[None], problem.teacher_hidden[None]
        mask = torch.ones_like(problem.labels)[None]
        loss: Tensor = chunked_divergence(
            hidden, teacher_hidden, problem.weight, problem.teacher_weight, mask, beta, len(problem.labels)
        )[0]
        return loss

    yield Variant(GKD, losses, lambda problem: gkd(problem, True))
    yield Variant(GKD_AS_IS, losses, lambda problem: gkd(problem, False))
    yield Variant(TRL_CHUNKED, losses, chunked)


def _weights(losses: tuple[Loss, ...]) -> dict[str, float]:
    hard = sum(loss.weight for loss in losses if not loss.needs_teacher)
    return {"weight_hard_loss": hard, "weight_soft_loss": sum(loss.weight for loss in losses) - hard}


def _liger(losses: tuple[Loss, ...], beta: float) -> Iterator[Variant]:
    if _liger_module() is None:
        return
    for compiled in (False, True):
        module = _liger_module()(beta=beta, compiled=compiled, **_weights(losses))

        def loss(problem: Problem, module: Any = module) -> Tensor:
            value: Tensor = module(
                problem.hidden, problem.weight, problem.teacher_hidden, problem.teacher_weight, problem.labels
            )
            return value

        yield Variant(LIGER_COMPILED if compiled else LIGER, losses, loss)


def _liger_cross_entropy(losses: tuple[Loss, ...], device: torch.device) -> Iterator[Variant]:
    """Liger's Triton kernel for cross-entropy; on a GPU only."""
    if _liger_module() is None or device.type != "cuda":
        return
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    module = LigerFusedLinearCrossEntropyLoss()
    yield Variant(LIGER_KERNEL, losses, lambda problem: module(problem.weight, problem.hidden, problem.labels))


def _liger_kernels(losses: tuple[Loss, ...], beta: float, device: torch.device) -> Iterator[Variant]:
    """Liger's Triton kernel for the generalised JSD, without cross-entropy; on a GPU only."""
    if _liger_module() is None or device.type != "cuda":
        return
    from liger_kernel.transformers import LigerFusedLinearJSD

    module = LigerFusedLinearJSD(jsd_beta=beta)
    yield Variant(LIGER_KERNEL, tuple(Loss(it.kind) for it in losses if it.needs_teacher), in_one_dtype(module))


def in_one_dtype(module: Callable[..., Tensor]) -> Callable[[Problem], Tensor]:
    """A loss of hidden states and heads that wants all of them in one dtype and does not know of autocast.

    Under autocast the student's head is in fp32 and the teacher's in bf16. So all are cast here, to autocast's dtype.
    """

    def loss(problem: Problem) -> Tensor:
        given = problem.hidden, problem.weight, problem.teacher_hidden, problem.teacher_weight
        with torch.autocast(problem.hidden.device.type, enabled=False):
            return module(*(one.to(problem.precision) for one in given), problem.labels)

    return loss
