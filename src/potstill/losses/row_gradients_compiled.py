"""``row_gradients.py`` compiled: torch.compile fuses its dozen passes over the vocabulary into two to four.

The sums come first, unnormalised: every pass that waits for another's result reads the logits once more. The formulas
are those of ``divergence_gradients.py``. Ensembles, ``adaptive_kl`` and fp64 cannot be fused and take the eager path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from potstill.losses.compiled_kernels import compiled, rows_vary
from potstill.losses.divergence_gradients import Coefficient, Probabilities, scaled_gradient, scaled_value, summands
from potstill.losses.divergences import FLOOR
from potstill.losses.logit_chunks import Logits
from potstill.losses.loss import Loss
from potstill.losses.pairing import Pairing
from potstill.losses.row_gradients import by_temperature
from potstill.losses.sparse_targets import NOTHING, Balance, KeptEntries, balance
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget

# No exponential is below e^-60 of the row's greatest. As a probability this is nothing, and it keeps q / p finite.
_LOWEST = -60.0
_OF_MIXTURES = ("jsd", "skew_kl", "skew_reverse_kl")


def can_fuse(pairing: Pairing, student: Logits) -> bool:
    """Whether the losses can be fused: one target, no ensemble, and several rows (one row would compile anew)."""
    target = pairing.parts[0].target
    return (
        len(pairing.parts) == 1
        and (target is None or isinstance(target, LogitsTarget | HiddenTarget | SparseTarget))
        and all(loss.kind != "adaptive_kl" for loss in pairing.losses)
        and student.product.dtype != torch.float64
        and len(student) > 1
    )


def fused_dense(
    student: Logits,
    teacher: Logits | None,
    labels: Int[Tensor, "N"],
    losses: Sequence[Loss],
    coefficients: Sequence[Coefficient],
    with_gradient: bool,
) -> Float[Tensor, "losses N"]:
    """Each loss's value per token. Overwrites ``student.product`` by the gradient for it."""
    kernel = _dense_kernel(_unweighted(losses), with_gradient)
    each = _as_tensor(coefficients, student)
    rows_vary(student.product, labels, teacher.product if teacher is not None else None)
    if each.dim() > 1:
        rows_vary(each, of=1)
    values, at_label = kernel(student, teacher, labels, each)
    if at_label is not None:
        student.put_at_labels(labels, at_label)
    return values


def fused_sparse(
    student: Logits,
    target: SparseTarget,
    labels: Int[Tensor, "N"],
    losses: Sequence[Loss],
    coefficients: Sequence[Coefficient],
    with_gradient: bool,
) -> Float[Tensor, "losses N"]:
    """As ``fused_dense``, in two passes over the vocabulary. Between them, all tensors are K + 1 wide."""
    temperatures = dict(by_temperature(losses))
    ids = target.ids.long()
    at_kept, at_label = student.at(ids), student.at(labels[:, None])
    kept = {temperature: KeptEntries.of(target, at_kept / temperature) for temperature in temperatures}
    if not target.sampled:
        _add_at(student.product, ids, next(iter(kept.values())).holes())
    rows_vary(student.product)
    sums = _sums_kernel(tuple(temperatures))(student)
    each = [
        _RowSums(
            temperature,
            kept[temperature],
            log_sum,
            balance(at_label / temperature, log_sum, kept[temperature], losses, coefficients, positions),
        )
        for (temperature, positions), log_sum in zip(temperatures.items(), sums, strict=True)
    ]
    if with_gradient:
        of_label = [c for loss, c in zip(losses, coefficients, strict=True) if not loss.needs_teacher]
        label = _gradient_at_label(student, at_label, labels, each, of_label) if of_label else None
        of_tails = [it.balance.of_tail for it in each]
        rows_vary(student.product, *sums, *of_tails)
        _write_kernel(tuple(temperatures))(student, sums, of_tails)
        of_kept = torch.zeros_like(at_kept)
        for it in each:
            assert it.balance.of_kept is not None
            of_kept = of_kept + it.balance.of_kept
        _add_at(student.product, ids, student.back(of_kept, at_kept))
        if label is not None:
            student.put_at_labels(labels, label)
    values = {position: value for it in each for position, value in it.balance.values.items()}
    return torch.stack([values[i] for i in range(len(losses))])


def _add_at(product: Float[Tensor, "N V"], ids: Int[Tensor, "N K"], values: Float[Tensor, "N K"]) -> None:
    """``scatter_add_``. On a CPU that copies the whole of a bf16 ``product``: 200 times as slow in torch 2.13."""
    if product.device.type != "cpu":
        product.scatter_add_(1, ids, values.to(product.dtype))
        return
    rows = torch.arange(len(ids), device=ids.device)[:, None]
    product.index_put_((rows.expand_as(ids), ids), values.to(product.dtype), accumulate=True)


@dataclass(frozen=True)
class _RowSums:
    """The sums over the vocabulary at one temperature, and the balance of the losses that they give."""

    temperature: float
    kept: KeptEntries
    log_sum: Float[Tensor, "N 1"]
    balance: Balance


def _gradient_at_label(
    student: Logits,
    at_label: Float[Tensor, "N 1"],
    labels: Int[Tensor, "N"],
    each: Sequence[_RowSums],
    of_label: Sequence[Coefficient],
) -> Float[Tensor, "N 1"]:
    """The gradient at the label in full precision: to subtract cross-entropy's 1 in bf16 would round the rest away.

    ``of_label`` are the coefficients of the cross-entropies, at least one.
    """
    total = torch.zeros_like(at_label) - sum(of_label[1:], of_label[0])
    for it in each:
        here = (it.kept.ids == labels[:, None]) & it.kept.used
        of_tail, of_kept = it.balance.of_tail, it.balance.of_kept
        from_tail = of_tail * (at_label / it.temperature - it.log_sum.clamp_min(NOTHING)).clamp_max(0).exp()
        if not it.kept.sampled:
            from_tail = from_tail.masked_fill(here.any(-1, keepdim=True), 0.0)
        assert of_kept is not None
        total = total + from_tail + (of_kept * here).sum(-1, keepdim=True)
    return student.back(total, at_label)


def _unweighted(losses: Sequence[Loss]) -> tuple[Loss, ...]:
    """The losses with weight 1, so that weights are no constants of a kernel: a schedule would compile at each step."""
    return tuple(replace(loss, weight=1.0) for loss in losses)


def _as_tensor(coefficients: Sequence[Coefficient], like: Logits) -> Float[Tensor, "losses *N"]:
    """The coefficients as one tensor, filled in on the device: a copy to a GPU would wait for all work before it."""
    device = like.product.device
    parts = [c.float() if isinstance(c, Tensor) else torch.full((), c, device=device) for c in coefficients]
    return torch.stack(torch.broadcast_tensors(*[part.to(device) for part in parts]))


@cache
def _dense_kernel(losses: tuple[Loss, ...], with_gradient: bool) -> Callable[..., tuple[Tensor, Tensor | None]]:
    of_label = [i for i, loss in enumerate(losses) if not loss.needs_teacher]

    def dense_kernel(
        student: Logits, teacher: Logits | None, labels: Int[Tensor, "N"], coefficients: Float[Tensor, "losses *N"]
    ) -> tuple[Float[Tensor, "losses N"], Float[Tensor, "N 1"] | None]:
        logits = student.finished()
        teacher_logits = teacher.finished() if teacher is not None else None
        values: list[Tensor] = [labels] * len(losses)
        gradient: Tensor | float = 0.0
        for temperature, positions in by_temperature(losses):
            at_one = {i: losses[i] for i in positions}
            found, part = _at_temperature(logits, teacher_logits, labels, temperature, at_one, coefficients)
            for i, value in found.items():
                values[i] = value
            gradient = gradient + part
        at_label = None
        if with_gradient:
            assert isinstance(gradient, Tensor)
            total = sum(coefficients[i] for i in of_label)
            if teacher_logits is None:
                # Written afterwards: to compare each id with the label takes a third of this kernel's time on a CPU.
                here = labels[:, None]
                at_label = student.back(gradient.gather(1, here) - total, logits.gather(1, here))
            elif of_label:
                # With a teacher the gather would make torch keep the whole gradient in memory, which costs more.
                ids = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
                gradient = gradient - torch.where(ids == labels[:, None].int(), total, 0.0)
            student.product.copy_(student.back(gradient, logits))
        return torch.stack(values), at_label

    return compiled(dense_kernel)


def _at_temperature(
    student: Float[Tensor, "N V"],
    teacher: Float[Tensor, "N V"] | None,
    labels: Int[Tensor, "N"],
    temperature: float,
    losses: dict[int, Loss],
    coefficients: Float[Tensor, "losses *N"],
) -> tuple[dict[int, Float[Tensor, "N"]], Float[Tensor, "N V"]]:
    """Values, by position, and the gradient for the student's logits, of the losses of one temperature.

    The gradient is without cross-entropy's part at the label.
    """
    values: dict[int, Tensor] = {}
    a, of_a, sum_a = _exponentials(student, temperature)
    log_p = a - sum_a.log()
    p = of_a * (1 / sum_a)
    of_p: Tensor | float = 0.0
    others: list[Tensor] = []
    for i, loss in losses.items():
        if not loss.needs_teacher:
            values[i] = -log_p.gather(1, labels[:, None])[:, 0]
            of_p = of_p + coefficients[i]
    if teacher is not None and any(loss.needs_teacher for loss in losses.values()):
        b, of_b, sum_b = _exponentials(teacher, temperature)
        log_q = b.clamp_min(FLOOR) - sum_b.log()
        at = Probabilities(p, of_b * (1 / sum_b), log_p.clamp_min(FLOOR), log_q)
        for i, loss in losses.items():
            if not loss.needs_teacher:
                continue
            if loss.kind in _OF_MIXTURES:
                ratio = (of_b / of_a) * (sum_a / sum_b)
                nearer_p, nearer_q = a.clamp_min(_LOWEST) - sum_a.log(), b.clamp_min(_LOWEST) - sum_b.log()
                v, pd = summands(loss, Probabilities(p, at.q, nearer_p, nearer_q), ratio=ratio)
            else:
                v, pd = summands(loss, at)
            values[i] = scaled_value(loss, v)
            pd, mean = scaled_gradient(loss, pd, coefficients[i], q_sums_to_one=True)
            of_p = of_p - mean
            others.append(pd)
    return values, sum(others, p * of_p)


def _exponentials(
    logits: Float[Tensor, "N V"], temperature: float
) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N V"], Float[Tensor, "N 1"]]:
    """Logits over temperature, shifted so that the greatest is 0; their exponentials; and the sum of these."""
    scores = logits - logits.amax(-1, keepdim=True)
    if temperature != 1:
        scores = scores / temperature
    exponentials = scores.clamp_min(_LOWEST).exp()
    return scores, exponentials, exponentials.sum(-1, keepdim=True)


def _with_holes(student: Logits) -> Float[Tensor, "N V"]:
    """The finished logits, with -inf where the product is -inf: a soft cap would make it finite."""
    logits = student.finished()
    if student.softcap is None and student.scale > 0:
        return logits
    return logits.masked_fill(student.product == -torch.inf, -torch.inf)


@cache
def _sums_kernel(temperatures: tuple[float, ...]) -> Callable[..., list[Tensor]]:
    def sums_kernel(student: Logits) -> list[Float[Tensor, "N 1"]]:
        logits = _with_holes(student)
        top = logits.amax(-1, keepdim=True).clamp_min(NOTHING)
        each = [((logits - top) / temperature).exp().sum(-1, keepdim=True).log() for temperature in temperatures]
        return [top / temperature + log for temperature, log in zip(temperatures, each, strict=True)]

    return compiled(sums_kernel)


@cache
def _write_kernel(temperatures: tuple[float, ...]) -> Callable[..., None]:
    def write_kernel(student: Logits, sums: Sequence[Tensor], of_tail: Sequence[Tensor]) -> None:
        logits = _with_holes(student)
        gradient = torch.zeros_like(logits)
        for temperature, log_sum, factor in zip(temperatures, sums, of_tail, strict=True):
            gradient = gradient + factor * (logits / temperature - log_sum.clamp_min(NOTHING)).exp()
        student.product.copy_(student.back(gradient, student.finished()))

    return compiled(write_kernel)
