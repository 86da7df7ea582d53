"""Steps from captured spans, over the best cross-entropy step: a teacher of another tokenizer has read the texts once.

To read its records and to align the text are part of a step.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.aims import Measured
from benchmarks.checking import check, fill, passed
from benchmarks.crossing_models import CrossingPair, CrossingProblem, Text
from benchmarks.crossing_variants import CE, CrossingChecker, crossing
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, measure
from benchmarks.variants import COMPILED, OURS
from potstill.data.collators import Collator
from potstill.data.prompts.collator import teacher_batch
from potstill.data.text_runs import TEXT_RUNS, DocumentTokens, column_of
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import SpanTarget
from potstill.targets import Provenance, StoreSpec, TargetStore
from potstill.teachers.capture_spans import DocumentBlocks, capture_spans, span_codec
from potstill.teachers.captured_spans import CapturedSpans

LOSSES = (Loss("alm"), CE)
BATCHES = 8


def captured_steps(pair: CrossingPair, text: Text, settings: Settings) -> tuple[Table, list[Measured]]:
    """Measure steps from a store of the pair's teacher: the table, and the figure for the aim, if ours is right.

    Args:
        pair: the models.
        text: the rows of all batches.
        settings: of the run.
    """
    say(f"from captured spans: {pair.title}")
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), pair, text)
        return _measured(pair, text, Path(folder), settings)


def write_store(folder: Path, pair: CrossingPair, text: Text) -> None:
    """Capture what the teacher of the pair says of the texts."""
    codec = span_codec(pair.teacher.config, text.theirs.tokenizer)
    spec = StoreSpec(folder, codec, Provenance("random", "-", "-", "none"))
    capture_spans(spec, pair.live, DocumentBlocks(text.texts, text.theirs, codec), len(pair.text.texts))


class SpanReader:
    """Reads the batches in order. Each variant has its own, so that each reads every record a first time."""

    def __init__(self, pair: CrossingPair, text: Text, folder: Path | None) -> None:
        self.collate: Any = Collator(0)
        self._teacher: CapturedSpans | None = None
        if folder is not None:
            self._teacher = CapturedSpans(TargetStore(folder, expect=None), text.ours, text.theirs)
            self._teacher.to(pair.device)
            self.collate = self._teacher.collator(self.collate)
        self._device, self._samples, self._rows = pair.device, samples_of(text), len(pair.text.texts)
        self._turns: Iterator[int] = cycle(range(0, len(self._samples), self._rows))

    def next(self) -> tuple[dict[str, Tensor], SpanTarget | None]:
        """The next batch, and the teacher's target; None without a store."""
        first = next(self._turns)
        batch = self.collate(self._samples[first : first + self._rows])
        batch = {name: value.to(self._device) for name, value in batch.items()}
        return batch, None if self._teacher is None else self._teacher.target(teacher_batch(batch))


def samples_of(text: Text) -> list[dict[str, Any]]:
    """The student's rows, each of which says which text it is of."""
    found = zip(text.samples, text.texts, text.ours.read(text.texts), strict=True)
    return [
        {**sample, TEXT_RUNS: column_of([DocumentTokens.of(one, tokens, 1).runs(0, len(tokens.ids) + 1, 0)])}
        for sample, one, tokens in found
    ]


@dataclass(frozen=True, kw_only=True)
class CapturedProblem(CrossingProblem):
    """A problem whose teacher was captured."""

    spans: SpanTarget

    def target_of(self, losses: Any, compile: bool = False) -> SpanTarget:
        """What the store says."""
        return self.spans


def captured_problem(pair: CrossingPair, target: SpanTarget) -> CapturedProblem:
    """The pair's problem with captured spans in the place of its teacher."""
    return CapturedProblem(**vars(pair.problem), spans=target)


def _measured(pair: CrossingPair, text: Text, folder: Path, settings: Settings) -> tuple[Table, list[Measured]]:
    _, target = SpanReader(pair, text, folder).next()
    assert target is not None
    checked = check(
        [replace(crossing("alm", compile=compile), name=name) for compile, name in ((True, COMPILED), (False, OURS))],
        CrossingChecker(captured_problem(pair, target)),
    )
    readers = {name: SpanReader(pair, text, None) for name in ("Hugging Face", OURS, COMPILED)}
    actions: dict[str, Action] = {f"CE: {name}": partial(_ce_step, pair, name, one) for name, one in readers.items()}
    scales = list(actions)
    for variant in passed(checked):
        reader = SpanReader(pair, text, folder)
        actions[variant.name] = partial(_step, pair, LOSSES, reader, variant.name == COMPILED)
    times = measure(actions, settings.rounds, settings.device)
    best = times.fastest(scales)
    milliseconds = times.median(best) * 1e3
    table = Table(
        f"From captured spans, alm + CE, {pair.title}",
        ("variant", "over the best CE step: median (best)", "ms", "worst relative error"),
        f"{settings.rounds} rounds of {BATCHES} batches in turn. Over `{best}`, {milliseconds:.0f} ms. "
        "Both sides collate. Captured ones find, verify and decode their records too, and align the text, in the same "
        "thread.",
    )
    fill(table, checked, times, [best])
    if COMPILED not in times.seconds:
        return table, []
    dtype = "bf16" if pair.autocast else "fp32"
    return table, [Measured("crossing, captured", times.ratio(COMPILED, [best]), f"alm + CE, {dtype}")]


def _step(pair: CrossingPair, losses: tuple[Loss, ...], reader: SpanReader, compile: bool) -> None:
    pair.student.zero_grad(set_to_none=True)
    batch, target = reader.next()
    pair.learn(losses, batch, target, compile)


def _ce_step(pair: CrossingPair, name: str, reader: SpanReader) -> None:
    if name != "Hugging Face":
        _step(pair, (CE,), reader, name == COMPILED)
        return
    pair.student.zero_grad(set_to_none=True)
    batch, _ = reader.next()
    pair.hugging_face_step(batch)
