"""The aims, and whether the measured figures reach them."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table import Table
from benchmarks.timing import Ratio

NOT_MEASURED = "not measured"
"""In place of a figure that a run has not."""


@dataclass(frozen=True)
class Aim:
    """One line of the table of aims. Its worst case is compared with the limit."""

    key: str
    what: str
    cpu: str
    cpu_most: float
    gpu: str
    gpu_most: float | None
    at_least: bool = False


@dataclass(frozen=True)
class Measured:
    """A figure for the aim of that key, and where it was measured."""

    key: str
    value: Ratio | float
    where: str

    @property
    def median(self) -> float:
        """The number that is compared with the aim."""
        return self.value.median if isinstance(self.value, Ratio) else self.value


AIMS = (
    Aim("online, fp32", "online step, KL + CE ÷ (teacher forward + best CE step), fp32", "≤ 1.05", 1.05, "", None),
    Aim("online, bf16", "the same, bf16", "≤ 1.10", 1.10, "≤ 1.05", 1.05),
    Aim("online, others", "the same with JSD or reverse KL", "≤ 1.15", 1.15, "≤ 1.08", 1.08),
    Aim("head, fp32", "loss head ÷ its bare matrix products, fp32", "≤ 1.10", 1.10, "", None),
    Aim("head, bf16", "the same, bf16", "≤ 1.25", 1.25, "≤ 1.3", 1.3),
    Aim("captured, fp32", "step from captured targets ÷ CE step, reader included, fp32", "≤ 1.02", 1.02, "", None),
    Aim("captured, bf16", "the same, bf16", "≤ 1.06", 1.06, "≤ 1.03", 1.03),
    Aim("trainers", "whole Trainer step ÷ Trainer's (CE, captured) or the faster of TRL's", "≤ 1", 1.0, "≤ 1", 1.0),
    Aim("memory", "transient memory beyond the head's gradient, V = 128k, MiB", "≤ 256", 256, "≤ 600", 600),
    Aim("memory, growth", "the same, growth when B·T doubles, MiB", "flat (≤ 8)", 8, "flat (≤ 8)", 8),
    Aim("store, bytes", "default store, B/token", "≤ 200", 200, "", None),
    Aim("store, KL", "default store, KL on the 135M teacher", "≤ 0.2", 0.2, "", None),
    Aim("store, unbiased", "an unbiased mode, B/token", "≤ 50", 50, "", None),
    Aim(
        "format",
        "capture, training and evaluation: chosen format ÷ the faster",
        "≤ 1.05",
        1.05,
        "≤ 1.05",
        1.05,
    ),
    Aim("reader", "reader, one core, M tokens/s", "≥ 4", 4, "", None, at_least=True),
    Aim("evaluation", "evaluation of a teacher and three models ÷ one forward of each", "≤ 1.15", 1.15, "≤ 1.15", 1.15),
    Aim("writer", "writer, one core, M tokens/s", "≥ 2", 2, "", None, at_least=True),
    Aim("capture", "capture ÷ the teacher's own forward in its best batch", "≤ 1.05", 1.05, "", None),
    Aim("keys", "keys of a corpus, M tokens/s", "≥ 10", 10, "", None, at_least=True),
    Aim("collator", "collator, M tokens/s", "≥ 10", 10, "", None, at_least=True),
    Aim("corpus, speed", "corpus, MB/s ÷ datasets.map, two processes", "≥ 1.0", 1.0, "", None, at_least=True),
    Aim("corpus, memory", "corpus, peak memory above the start, MiB", "≤ 500", 500, "", None),
    Aim("alignment", "alignment of two tokenizations, one core, M tokens/s", "≥ 2", 2, "", None, at_least=True),
    Aim("crossing", "step across tokenizers, alm + CE ÷ (teacher forward + best CE step)", "≤ 1.05", 1.05, "", None),
    Aim("crossing, captured", "the same from captured spans ÷ the best CE step", "≤ 1.05", 1.05, "", None),
    Aim("generation", "answers written, tokens/s ÷ `generate` in fixed batches", "≥ 1.5", 1.5, "", None, at_least=True),
    Aim("generation, equal", "the same, where all answers have one length", "≥ 0.91", 0.91, "", None, at_least=True),
)


def summary(on_cpu: Sequence[Measured], on_gpu: Sequence[Measured]) -> Table:
    """The table of all aims: each with its worst figures on a CPU and on a GPU, and whether they reach it.

    Args:
        on_cpu: the figures of a machine without a GPU; none if they were not measured.
        on_gpu: those of a GPU.
    """
    table = Table(
        "What must be reached",
        (
            "what",
            "aim on a CPU",
            "measured: median (best)",
            "",
            "worst case",
            "aim on an H100",
            "measured on a GPU",
            "",
            "worst case",
        ),
        "Judged by the median of the worst case; `potstill, compiled` where a loss is timed.",
    )
    for aim in AIMS:
        cells = [aim.what, aim.cpu, *_worst(aim, aim.cpu_most, on_cpu)]
        cells += [aim.gpu, *_worst(aim, aim.gpu_most, on_gpu)] if aim.gpu else ["–", "–", "", ""]
        table.add(*cells)
    return table


def _worst(aim: Aim, limit: float | None, measured: Sequence[Measured]) -> tuple[str, str, str]:
    """The worst figure of an aim, whether it reaches the limit, and where it was measured."""
    found = [one for one in measured if one.key == aim.key]
    if not found:
        return NOT_MEASURED, "", ""
    worst = (min if aim.at_least else max)(found, key=lambda one: one.median)
    return _figure(worst.value), _verdict(aim, worst.median, limit), worst.where


def _figure(value: Ratio | float) -> str:
    return str(value) if isinstance(value, Ratio) else f"{value:.3g}"


def _verdict(aim: Aim, value: float, limit: float | None) -> str:
    if limit is None:
        return ""
    return "reached" if (value >= limit if aim.at_least else value <= limit) else "**not reached**"
