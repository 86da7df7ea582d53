"""Section `crossing`: a step against a live teacher of another tokenizer, over its forward and the best cross-entropy
step, beside TRL's GOLD loss. Our steps begin with tokens of the student: aligning the text is part of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from benchmarks.aims import Measured
from benchmarks.checking import check, fill, passed
from benchmarks.corpus import boolq_passages
from benchmarks.crossing_models import CrossingPair, CrossingProblem, Text
from benchmarks.gold import BAYESIAN, OBSERVED, documented, gold, is_here, reads_the_same
from benchmarks.models import Shape
from benchmarks.peers import hugging_face
from benchmarks.problem import Problem
from benchmarks.reference import Answer, Checker, Errors, answer, compare
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, measure
from benchmarks.variants import COMPILED, OURS, Variant, ours
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import train_tokenizer
from potstill.losses.chunked import distillation_loss
from potstill.losses.cross_tokenizer import likelihood_matching
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, SpanTarget
from potstill.models.head import Head
from potstill.recipe.tokenizer import TrainedTokenizer
from potstill.training.memory import loss_budget

CE = Loss("cross_entropy")
TEACHER = "teacher forward"
GOLD = {OBSERVED: "TRL GOLD, as it comes (observed)", BAYESIAN: "TRL GOLD, bayesian"}
CHARACTERS_OF_TOKEN = 3
"""Nearly, of a tokenizer that was trained on the passages: a text is cut to fit a row."""


@dataclass(frozen=True)
class Size:
    """The tokenizers of student and teacher, and the shape of both models."""

    ours: int
    theirs: int
    shape: Shape


def size(settings: Settings) -> Size:
    """The sizes: on a CPU, of models whose step takes about two seconds."""
    if settings.quick:
        return Size(512, 1024, Shape(1024, 64, 1, 2, rows=2, length=64))
    if settings.device.type == "cuda":
        return Size(16384, 32000, Shape(32000, 2048, 4, 8, rows=8, length=1024))
    return Size(8192, 32000, Shape())


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the losses across tokenizers: the tables, and the figures for the aim."""
    sizes = size(settings)
    text = make_text(sizes, boolq_passages()[:8000])
    tables, measured = [], []
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.float32 and settings.device.type == "cuda":
            continue
        pair = CrossingPair(sizes.shape, (sizes.ours, sizes.theirs), text, dtype, settings.device)
        table, found = steps(pair, settings)
        tables.append(table)
        measured.append(found)
    return tables, measured


def make_text(sizes: Size, passages: Sequence[str]) -> Text:
    """The rows of a batch: beginnings of passages, read by tokenizers that are trained on all of them."""
    ours, theirs = (
        TokenBytes(train_tokenizer(list(passages), TrainedTokenizer(vocab_size=each)), f"{each:,} tokens")
        for each in (sizes.ours, sizes.theirs)
    )
    characters = CHARACTERS_OF_TOKEN * sizes.shape.length
    # Both begin at the beginning of a document, and end between two words.
    texts = [text[:characters].rpartition(" ")[0] for text in passages if text.isascii() and len(text) > characters]
    return Text(ours, theirs, texts[: sizes.shape.rows])


def steps(pair: CrossingPair, settings: Settings) -> tuple[Table, Measured]:
    """The steps of one pair of models."""
    say(f"across tokenizers: {pair.title}")
    variants = [crossing("alm", compile=True), crossing("alm"), crossing("uld")]
    variants += [peer(strategy) for strategy in GOLD] if is_here() else []
    checked = check(variants, CrossingChecker(pair.problem))
    ce = check(
        [ours((CE,), False), ours((CE,), True), Variant("Hugging Face", (CE,), hugging_face)], Checker(pair.problem)
    )
    actions: dict[str, Action] = {TEACHER: pair.teacher_forward}
    of_ce = {f"CE: {one.name}": partial(pair.ce_step, one) for one in passed(ce)}
    actions |= of_ce
    for variant in passed(checked):
        compile = variant.name.startswith(COMPILED)
        step = partial(pair.our_step, variant.losses, compile) if variant.losses else partial(pair.peer_step, variant)
        actions[variant.name] = step
    times = measure(actions, settings.rounds, settings.device)
    best = times.fastest(list(of_ce))
    table = Table(
        f"Across tokenizers, {pair.title}",
        ("variant", "over teacher + best CE: median (best)", "ms", "worst relative error"),
        f"{settings.rounds} rounds. The teacher's forward takes {times.median(TEACHER) * 1e3:.0f} ms, the best CE step "
        f"({best.removeprefix('CE: ')}) {times.median(best) * 1e3:.0f} ms. GOLD is checked against the definition in "
        f"its own documentation. {_told(pair.text)}",
    )
    fill(table, checked, times, [TEACHER, best])
    dtype = "bf16" if pair.autocast else "fp32"
    return table, Measured("crossing", times.ratio(variants[0].name, [TEACHER, best]), f"alm + CE, {dtype}")


def _told(text: Text) -> str:
    """What GOLD's two merges compare on this text."""
    ends = [
        [side.ends[row, 1 : 1 + side.sizes[row], 1].tolist() for side in (text.our_side, text.their_side)]
        for row in range(len(text.texts))
    ]
    shares = {strategy: fmean(reads_the_same(*each, strategy) for each in ends) for strategy in GOLD}
    return (
        f"Of the groups of tokens that it compares, {shares[OBSERVED]:.0%} (observed) and {shares[BAYESIAN]:.0%} "
        "(bayesian) have distributions of both models after the same text; of ours, all."
    )


def crossing(kind: str, compile: bool = False) -> Variant:
    """potstill's loss of this kind and cross-entropy, as DistilTrainer calls them."""
    losses = (Loss(kind), CE)

    def loss(problem: Problem) -> Tensor:
        assert isinstance(problem, CrossingProblem)
        value, _ = distillation_loss(
            problem.hidden,
            Head(problem.weight),
            problem.labels,
            problem.target_of(losses, compile),
            losses,
            denominator=float(len(problem.labels)),
            memory_budget=loss_budget(problem.hidden.device, coming=0),
            compile=compile,
        )
        return value

    return Variant(f"{COMPILED if compile else OURS}, {kind} + CE", losses, loss)


def peer(strategy: str) -> Variant:
    """GOLD's loss with cross-entropy, from whole logits."""

    def loss(problem: Problem) -> Tensor:
        assert isinstance(problem, CrossingProblem)
        return gold(strategy, 1.0, *problem.whole_logits(), problem.text.our_side, problem.text.their_side)

    return Variant(GOLD[strategy], (), loss)


class CrossingChecker(Checker):
    """Compares variants with definitions in float64."""

    def expected(self, variant: Variant) -> Answer:
        """The definition of our losses, or that of GOLD's documentation, by autograd."""
        problem = self.problem
        assert isinstance(problem, CrossingProblem)
        exact = problem.in_fp64()
        logits = exact.hidden @ exact.weight.T
        value = cross_entropy(logits, exact.labels)
        if variant.losses:
            value = value + _definition(variant.losses[0], logits, exact.target_of(variant.losses), exact.labels)
        else:
            strategy = next(name for name, title in GOLD.items() if title == variant.name)
            text = problem.text
            value = value + documented(strategy, *exact.whole_logits(), text.our_side, text.their_side)
        return Answer(value.detach(), *torch.autograd.grad(value, (exact.hidden, exact.weight)))

    def errors(self, variant: Variant) -> Errors:
        """The errors of a variant.

        The gradient of an L1 distance jumps where two probabilities are equal, which bf16 rounds them to. So gradients
        of sorted probabilities are compared on the same numbers in fp32, and the value in bf16 too.
        """
        if self.problem.precision != torch.bfloat16 or variant.losses[:1] == (Loss("alm"),):
            return super().errors(variant)
        expected = self.expected(variant)
        exact = compare(answer(variant, self.problem.in_fp32()), expected, torch.float32)
        if exact.refusal is not None:
            return exact
        rounded = compare(answer(variant, self.problem), expected, torch.bfloat16)
        return replace(rounded, hidden=exact.hidden, weight=exact.weight)


def _definition(loss: Loss, logits: Tensor, target: SpanTarget, labels: Tensor) -> Tensor:
    """The mean over the student's tokens of a loss, from whole distributions."""
    log_p = logits.log_softmax(-1)
    if loss.kind == "uld":
        pairs = target.pairs
        assert pairs is not None
        assert isinstance(pairs.whole, HiddenTarget)
        p, q = log_p[pairs.is_paired].exp(), (pairs.whole.hidden @ pairs.whole.head.weight.T).softmax(-1)
        p, q = (each.sort(-1, descending=True).values for each in (p, q))
        return (pad(p, (0, q.shape[1] - p.shape[1])) - q).abs().sum() / len(labels)
    at_label = log_p.gather(1, labels[:, None])[:, 0]
    mass = log_p[:, target.begins_word].logsumexp(-1)
    of_group = log_p.new_zeros(len(target.used))
    for (first, last), opens, group in zip(
        target.spans.tolist(), target.opens.tolist(), target.group.tolist(), strict=True
    ):
        one = at_label[first:last].sum() + mass[last] - (0.0 if opens else mass[first])
        of_group = of_group.index_add(0, target.group.new_tensor([group]), one[None])
    values, _ = likelihood_matching(of_group[target.used], target.log_q[target.used])
    return values.sum() / len(labels)
