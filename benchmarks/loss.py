"""Section `loss`: the loss head, forward and backward, over its bare matrix products."""

from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.aims import Measured
from benchmarks.checking import check, fill, passed
from benchmarks.peers import GKD_AS_IS, LIGER, NAIVE_COMPILED, TRL_CHUNKED, peers
from benchmarks.problem import make_problem
from benchmarks.products import bare
from benchmarks.reference import Checker
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import measure
from benchmarks.variants import COMPILED, ours
from potstill.losses.loss import Loss

ALL = ("cross_entropy", "forward_kl", "reverse_kl", "jsd")
TITLES = {"cross_entropy": "cross-entropy", "forward_kl": "forward KL", "reverse_kl": "reverse KL", "jsd": "JSD"}


@dataclass(frozen=True)
class Size:
    """One setting of the loss head."""

    vocabulary: int
    dtype: torch.dtype
    tokens: int
    kinds: tuple[str, ...] = ALL
    width: int = 576

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.").replace("float32", "fp32").replace("bfloat16", "bf16")
        return f"V = {self.vocabulary}, {dtype}, {self.tokens} tokens, H = {self.width}"


def sizes(settings: Settings) -> list[Size]:
    """The measured settings: three on a CPU, one of real size on a GPU."""
    if settings.device.type == "cuda":
        return [Size(128256, torch.bfloat16, 8192, width=2048)]
    if settings.quick:
        kinds = ("forward_kl", "jsd")
        return [Size(8000, dtype, 128, kinds, width=128) for dtype in (torch.float32, torch.bfloat16)]
    return [
        Size(32000, torch.float32, 512),
        Size(128256, torch.float32, 256, ("forward_kl", "jsd")),
        Size(32000, torch.bfloat16, 512),
    ]


def _left_out(size: Size, kind: str, settings: Settings) -> set[str]:
    """Peers that are not run on a CPU: they would take minutes and show nothing new."""
    if settings.device.type == "cuda":
        return set()
    # In fp32 the first equals GKD. In bf16 the second takes ten times as long as all others together.
    names = {GKD_AS_IS if size.dtype == torch.float32 else TRL_CHUNKED}
    if kind == "reverse_kl":
        names |= {TRL_CHUNKED, LIGER, NAIVE_COMPILED}
    return names | ({LIGER} if size.vocabulary > 100_000 else set())


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the loss head: the tables, and the figures for the aims."""
    tables, measured = [], []
    for size in sizes(settings):
        for kind in size.kinds:
            table, found = _one(size, kind, settings)
            tables.append(table)
            measured += found
    return tables, measured


def _one(size: Size, kind: str, settings: Settings) -> tuple[Table, list[Measured]]:
    say(f"loss head: {TITLES[kind]}, {size}")
    problem = make_problem(size.tokens, size.vocabulary, size.width, size.dtype, settings.device)
    losses = (Loss(kind),)
    beside = [one for one in peers(losses, settings.device) if one.name not in _left_out(size, kind, settings)]
    checked = check([ours(losses, False), ours(losses, True), *beside], Checker(problem))
    scale = bare(problem, with_teacher=losses[0].needs_teacher)
    # One copy for all rounds: each step drops the gradients of the step before.
    own = problem.fresh()
    actions = scale | {variant.name: partial(variant.step, own) for variant in passed(checked)}
    times = measure(actions, settings.rounds, settings.device)
    base = times.fastest(list(scale))
    table = Table(
        f"{TITLES[kind]}, {size}",
        ("variant", "over its products: median (best)", "ms", "worst relative error"),
        f"Over `{base}`, {times.median(base) * 1e3:.0f} ms; {settings.rounds} rounds.",
    )
    fill(table, checked, times, [base])
    if COMPILED not in times.seconds:
        return table, []
    key = "head, bf16" if size.dtype == torch.bfloat16 else "head, fp32"
    return table, [Measured(key, times.ratio(COMPILED, [base]), f"{TITLES[kind]}, V = {size.vocabulary}")]
