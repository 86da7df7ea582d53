"""Section `crossing`: a step against a live teacher of another tokenizer, over its forward and the best cross-entropy
step, beside TRL's GOLD loss. Our steps begin with tokens of the student: aligning the text is part of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import torch

from benchmarks.aims import Measured
from benchmarks.captured_crossing import BATCHES, captured_steps
from benchmarks.checking import check, fill, passed
from benchmarks.corpus import boolq_passages
from benchmarks.crossing_models import CrossingPair, Text
from benchmarks.crossing_variants import CE, GOLD, CrossingChecker, crossing, peer
from benchmarks.gold import BAYESIAN, OBSERVED, is_here, reads_the_same
from benchmarks.models import Shape
from benchmarks.peers import hugging_face
from benchmarks.reference import Checker
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, measure
from benchmarks.variants import COMPILED, Variant, ours
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import train_tokenizer
from potstill.recipe.tokenizer import TrainedTokenizer

TEACHER = "teacher forward"
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
    every = make_text(sizes, boolq_passages()[:8000], BATCHES)
    text = every.rows(0, sizes.shape.rows)
    tables, measured = [], []
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.float32 and settings.device.type == "cuda":
            continue
        pair = CrossingPair(sizes.shape, (sizes.ours, sizes.theirs), text, dtype, settings.device, every.longest)
        for table, found in (steps(pair, settings), captured_steps(pair, every, settings)):
            tables.append(table)
            measured += found
    return tables, measured


def make_text(sizes: Size, passages: Sequence[str], batches: int = 1) -> Text:
    """The rows of some batches: beginnings of passages, read by tokenizers that are trained on all of them."""
    ours, theirs = (
        TokenBytes(train_tokenizer(list(passages), TrainedTokenizer(vocab_size=each)), f"{each:,} tokens")
        for each in (sizes.ours, sizes.theirs)
    )
    characters = CHARACTERS_OF_TOKEN * sizes.shape.length
    # Both begin at the beginning of a document, and end between two words.
    texts = [text[:characters].rpartition(" ")[0] for text in passages if text.isascii() and len(text) > characters]
    return Text(ours, theirs, texts[: batches * sizes.shape.rows])


def steps(pair: CrossingPair, settings: Settings) -> tuple[Table, list[Measured]]:
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
    if variants[0].name not in times.seconds:
        return table, []
    dtype = "bf16" if pair.autocast else "fp32"
    return table, [Measured("crossing", times.ratio(variants[0].name, [TEACHER, best]), f"alm + CE, {dtype}")]


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
