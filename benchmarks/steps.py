"""Section `steps`: a training step with a live teacher, over the teacher's forward and the best cross-entropy step."""

from functools import partial

import torch

from benchmarks.aims import Measured
from benchmarks.captured import captured_steps
from benchmarks.checking import Checked, check, fill, passed
from benchmarks.models import Pair, Shape
from benchmarks.peers import GKD, LIGER_COMPILED, LIGER_KERNEL, NAIVE, TRL_CHUNKED, hugging_face, peers
from benchmarks.reference import Checker
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, Times, measure
from benchmarks.variants import COMPILED, OURS, Variant, ours
from potstill.losses.loss import Loss

CE = Loss("cross_entropy", 0.5)
KINDS = {"forward_kl": "forward KL", "jsd": "JSD", "reverse_kl": "reverse KL"}
BESIDE = {
    "forward_kl": (NAIVE, GKD, LIGER_COMPILED, LIGER_KERNEL),
    "jsd": (NAIVE, GKD, TRL_CHUNKED, LIGER_COMPILED, LIGER_KERNEL),
    "reverse_kl": (NAIVE, LIGER_KERNEL),
}
TEACHER = "teacher forward"


def shape(settings: Settings) -> Shape:
    """The sizes of the models. On a CPU a step takes about two seconds."""
    if settings.device.type == "cuda":
        return Shape(128256, 2048, student_layers=4, teacher_layers=8, rows=8, length=1024)
    if settings.quick:
        return Shape(8000, 192, 2, 3, rows=2, length=64)
    return Shape()


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure steps with a live teacher and from captured targets: the tables, and the figures for the aims."""
    tables, measured = [], []
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.float32 and settings.device.type == "cuda":
            continue
        pair = Pair(shape(settings), dtype, settings.device)
        for measure_steps in (online_steps, captured_steps):
            more, found = measure_steps(pair, settings)
            tables += more
            measured += found
    return tables, measured


def cross_entropy(pair: Pair, settings: Settings) -> tuple[Checked, dict[str, Action]]:
    """All cross-entropy steps: each variant with its check, and the right ones as actions by name."""
    losses = (Loss("cross_entropy"),)
    variants = [ours(losses, False), ours(losses, True), Variant("Hugging Face", losses, hugging_face)]
    variants += [one for one in peers(losses, settings.device) if one.name == LIGER_KERNEL]
    checked = check(variants, Checker(pair.problem))
    actions: dict[str, Action] = {}
    for variant in passed(checked):
        name = f"CE: {variant.name}"
        if variant.name == "Hugging Face":
            actions[name] = partial(pair.hugging_face_step, pair.batch)
        elif variant.name in (OURS, COMPILED):
            actions[name] = partial(pair.our_step, losses, variant.name == COMPILED, pair.batch)
        else:
            actions[name] = partial(pair.peer_step, variant, pair.batch)
    return checked, actions


def online_steps(pair: Pair, settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure steps with a live teacher: the tables, and the figures for the aims."""
    say(f"online step: {pair.title}")
    ce_checked, ce_actions = cross_entropy(pair, settings)
    checked = {kind: _checked(pair, kind, settings) for kind in KINDS}
    actions: dict[str, Action] = {TEACHER: pair.teacher_forward} | ce_actions
    for kind, variants in checked.items():
        for variant in passed(variants):
            actions[f"{kind}: {variant.name}"] = _step(pair, variant)
    times = measure(actions, settings.rounds, settings.device)
    best = times.fastest(list(ce_actions))
    tables = [_ce_table(pair, ce_checked, times, best)]
    measured = []
    dtype = "bf16" if pair.autocast else "fp32"
    for kind, name in KINDS.items():
        table = Table(
            f"Online step, {name} + CE, {pair.title}",
            ("variant", "over teacher + best CE: median (best)", "ms", "worst relative error"),
            f"{settings.rounds} rounds. Student of {pair.shape.student_layers} layers, teacher of "
            f"{pair.shape.teacher_layers}. {GKD} and {TRL_CHUNKED} have no cross-entropy beside the divergence.",
        )
        fill(table, checked[kind], times, [TEACHER, best], f"{kind}: ")
        tables.append(table)
        if f"{kind}: {COMPILED}" in times.seconds:
            key = f"online, {dtype}" if kind == "forward_kl" else "online, others"
            measured.append(Measured(key, times.ratio(f"{kind}: {COMPILED}", [TEACHER, best]), f"{name}, {dtype}"))
    return tables, measured


def _checked(pair: Pair, kind: str, settings: Settings) -> Checked:
    losses = (Loss(kind, 0.5), CE)
    beside = [one for one in peers(losses, settings.device) if one.name in BESIDE[kind]]
    return check([ours(losses, False), ours(losses, True), *beside], Checker(pair.problem))


def _step(pair: Pair, variant: Variant) -> Action:
    if variant.name in (OURS, COMPILED):
        return partial(pair.our_step, variant.losses, variant.name == COMPILED, pair.batch)
    return partial(pair.peer_step, variant, pair.batch)


def _ce_table(pair: Pair, checked: Checked, times: Times, best: str) -> Table:
    table = Table(
        f"Cross-entropy step, {pair.title}",
        ("variant", "over the best CE: median (best)", "ms", "worst relative error"),
        f"The scale of the tables below; the teacher's forward takes {times.median(TEACHER) * 1e3:.0f} ms.",
    )
    fill(table, checked, times, [best], "CE: ")
    return table
