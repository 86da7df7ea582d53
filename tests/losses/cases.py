"""Random inputs of every shape and kind for the property tests, in float64."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import KINDS, Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, MixedTarget, SparseTarget, TeacherTarget
from potstill.models.head import Head

DIVERGENCES = [kind for kind, it in KINDS.items() if kind != "cross_entropy" and not it.crosses_tokenizers]
TARGETS = ["logits", "hidden", "sparse", "sampled", "probabilities", "mixed_logits", "sparse_ensemble"]


@dataclass
class Case:
    hidden: Tensor
    head: Head
    labels: Tensor
    target: TeacherTarget
    losses: list[Loss]
    denominator: float
    memory_budget: int
    vocabulary: int | None

    @property
    def inputs(self) -> list[Tensor]:
        return [self.hidden, self.head.weight] + ([] if self.head.bias is None else [self.head.bias])


@st.composite
def cases(draw: st.DrawFn, targets: list[str] = TARGETS, kinds: list[str] = DIVERGENCES) -> Case:
    """Any divergence with any target, with or without cross-entropy, in one chunk or more."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    tokens, width, rows = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(2, 40))
    vocabulary = draw(st.one_of(st.none(), st.integers(2, rows)))
    shared = vocabulary or rows
    kind_of_target = draw(st.sampled_from(targets))
    only_forward = kind_of_target in ("sampled", "sparse_ensemble")
    kind = draw(st.sampled_from(["forward_kl"] if only_forward else kinds))
    temperature = draw(st.sampled_from([1.0, 0.7, 2.0, 5.0]))
    parameter = draw(st.sampled_from([None, 0.1, 0.5, 0.9])) if KINDS[kind].parameter else None
    named = {KINDS[kind].parameter: parameter} if parameter else {}
    losses = [Loss(kind, draw(st.sampled_from([1.0, 0.3])), temperature, **named)]  # type: ignore[arg-type]
    if draw(st.booleans()):
        losses.insert(draw(st.integers(0, 1)), Loss("cross_entropy", 0.7))
    head = Head(
        draw(spread()) * torch.randn(rows, width, dtype=torch.float64),
        torch.randn(rows, dtype=torch.float64) if draw(st.booleans()) else None,
        draw(st.sampled_from([1.0, 0.25])),
        draw(st.sampled_from([None, 3.0])),
    )
    case = Case(
        torch.randn(tokens, width, dtype=torch.float64),
        head,
        torch.randint(0, shared, (tokens,)),
        draw(target(kind_of_target, tokens, rows if vocabulary is None else rows + 2, shared, temperature)),
        losses,
        draw(st.sampled_from([1.0, 7.0, 1000.0])),
        draw(st.integers(1, 4 * 8 * rows * (tokens + 1))),
        vocabulary,
    )
    for tensor in case.inputs:
        tensor.requires_grad_()
    return case


def spread() -> st.SearchStrategy[float]:
    """From nearly uniform distributions to nearly certain ones."""
    return st.sampled_from([0.1, 1.0, 5.0])


@st.composite
def target(draw: st.DrawFn, kind: str, tokens: int, rows: int, shared: int, temperature: float) -> TeacherTarget:
    logits = draw(spread()) * torch.randn(tokens, rows, dtype=torch.float64)
    if kind == "logits":
        return LogitsTarget(logits)
    if kind == "hidden":
        return HiddenTarget(
            torch.randn(tokens, 3, dtype=torch.float64), Head(torch.randn(rows, 3, dtype=torch.float64), None, 2.0, 9.0)
        )
    log_q = (logits[:, :shared] / temperature).log_softmax(-1)
    if kind == "sparse":
        return top_k(log_q, draw(st.integers(1, shared)), temperature, unused=draw(st.integers(0, 2)))
    if kind == "sampled":
        return sampled(log_q, draw(st.integers(1, 12)), temperature)
    if kind == "sparse_ensemble":
        members = (
            top_k(log_q, draw(st.integers(1, shared)), temperature),
            sampled(log_q, 5, temperature),
            LogitsTarget(torch.randn(tokens, rows, dtype=torch.float64)),
        )
        return MixedTarget(members, (0.5, 0.2, 0.3))
    others = (LogitsTarget(logits), draw(target("hidden", tokens, rows, shared, temperature)))
    return MixedTarget(others, (0.25, 0.75), "logits" if kind == "mixed_logits" else "probabilities")


def top_k(log_q: Tensor, k: int, temperature: float, unused: int = 0) -> SparseTarget:
    """The k most probable ids, and ``unused`` more entries with ids that the row uses elsewhere."""
    log_probs, ids = log_q.topk(k, -1)
    rest = log_q.exp().scatter(1, ids, 0.0).sum(-1)
    log_tail = rest.log() if k < log_q.shape[1] else torch.full_like(rest, -torch.inf)
    ids = torch.cat([ids[:, :1].expand(-1, unused), ids], -1)
    log_probs = torch.cat([torch.full_like(log_probs[:, :1], -torch.inf).expand(-1, unused), log_probs], -1)
    return SparseTarget(ids, log_probs, log_tail, temperature)


def sampled(log_q: Tensor, draws: int, temperature: float) -> SparseTarget:
    ids = torch.multinomial(log_q.exp(), draws, replacement=True)
    share = torch.full(ids.shape, 1 / draws, dtype=torch.float64).log()
    return SparseTarget(ids, share, torch.full((len(ids),), -torch.inf), temperature, sampled=True)


def loss_on_a_gpu(kind: str, tokens: int, vocabulary: int, budget: int, kept: int | None = None) -> Tensor:
    """The eager loss of heads in bf16, with cross-entropy, by the path of a GPU; against a teacher's head, or against
    so many kept entries a token.

    It has tensors without data, which are on no CPU and take no time. torch has no autocast for them: use the fixture
    ``no_autocast``.
    """
    given = {"dtype": torch.bfloat16, "device": "meta"}
    states, weight = (torch.empty(rows, 8, requires_grad=True, **given) for rows in (tokens, vocabulary))
    target: TeacherTarget = HiddenTarget(torch.empty(tokens, 8, **given), Head(torch.empty(vocabulary, 8, **given)))
    labels, temperature = torch.zeros(tokens, dtype=torch.long, device="meta"), 1.0
    if kept is not None:
        # At another temperature than cross-entropy, which needs the most.
        temperature = 2.0
        log_probs = torch.empty(tokens, kept, device="meta")
        target = SparseTarget(log_probs.long(), log_probs, log_probs[:, 0], temperature)
    divergences = [Loss(kind, 0.5, temperature)] if kind != "cross_entropy" else []
    losses = [Loss("cross_entropy", 0.5), *divergences]
    return distillation_loss(
        states, Head(weight), labels, target, losses, denominator=float(tokens), memory_budget=budget
    )[0]
