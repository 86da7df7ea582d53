"""Section `format`: capture, training and evaluation in the number format that a run chooses, over the faster one."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.aims import Measured
from benchmarks.models import Pair
from benchmarks.run import Settings, say
from benchmarks.steps import shape
from benchmarks.table import Table
from benchmarks.timing import Action, measure
from potstill.device import accelerator_has_bfloat16, time_products
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.losses.token_scores import score_side_by_side
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure each kind of work in both formats: one table, and the figures for the aim."""
    say("number format")
    sizes = shape(settings)
    chosen, why = choice(settings.device, sizes.width)
    pairs = {name: Pair(sizes, dtype, settings.device) for name, dtype in FORMATS.items()}
    kinds: dict[str, Callable[[Pair], object]] = {
        "capture: the teacher's forward": Pair.teacher_forward,
        "training: a step": training_step,
        "evaluation: a student's scores": evaluation,
    }
    actions: dict[str, Action] = {
        f"{kind}, {name}": partial(action, pair) for kind, action in kinds.items() for name, pair in pairs.items()
    }
    times = measure(actions, settings.rounds, settings.device)
    table = Table(
        f"The chosen format, {chosen}, over the faster of both",
        ("work", "over the faster: median (best)", "fp32, ms", "bf16, ms"),
        f"{why}. {settings.rounds} rounds; H = {sizes.width}, V = {sizes.vocabulary}.",
    )
    measured = []
    for kind in kinds:
        names = {name: f"{kind}, {name}" for name in FORMATS}
        ratio = times.ratio(names[chosen], [times.fastest(list(names.values()))])
        table.add(kind, str(ratio), *(f"{times.median(one) * 1e3:.0f}" for one in names.values()))
        measured.append(Measured("format", ratio, kind))
    return [table], measured


def choice(device: torch.device, width: int) -> tuple[str, str]:
    """The format that a run on this device chooses, and why."""
    if device.type != "cpu":
        return "bf16" if accelerator_has_bfloat16() else "fp32", "The device says whether it has bf16"
    times = time_products(width, width * 8 // 3)
    clear = "clear" if times.is_clear else "unclear"
    said = f"One product is {times.speedup:.2f} times as fast in bf16 as in fp32, which is {clear}"
    return "bf16" if times.is_clear and times.speedup > 1 else "fp32", said


def training_step(pair: Pair) -> None:
    """Forward and backward as DistilTrainer does them, without a teacher."""
    pair.our_step((Loss("cross_entropy"),), False, pair.batch)


@torch.no_grad()
def evaluation(pair: Pair) -> dict[str, torch.Tensor]:
    """The scores of a model that only reads: its own forward, its head and its distance from a teacher."""
    head = head_of(pair.teacher)
    states, labels = forward(pair.teacher, head, pair.batch)
    ours = LogitsTarget(states) if head is None else HiddenTarget(states, head)
    return score_side_by_side([ours], labels, pair.live.target(pair.batch))[0]
