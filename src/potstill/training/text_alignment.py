"""Text alignment: how much of a trainer's texts is compared with teachers of other tokenizers.

It is measured on the first texts before anything is spent, as the stage `corpus` measures it on held-out text.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from potstill.console import say
from potstill.data.aligned_texts import aligned_texts
from potstill.data.alignment_figures import AlignmentFigures
from potstill.data.row_teachers import numbers_of_teachers
from potstill.data.text_samples import PAIR
from potstill.data.token_bytes import TokenBytes, readable
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.captured_spans import CapturedSpans
from potstill.training.samples import is_streamed

MEASURED_CHARACTERS = 2**20
"""The text that is measured: enough for a share of a thousandth, and a fraction of a second."""


def measure_texts(
    dataset: Any, field: str, teachers: Mapping[int, TeacherAcross | CapturedSpans], names: Sequence[str] | None
) -> None:
    """Print how much of the first training texts is compared with each teacher, and refuse lost text.

    The text of a sample of tokens is that of the student's tokens. Of it, only a teacher can lose something. A stream
    is not read, because one that can be read only once would lose its first samples.

    Args:
        dataset: the training samples, of texts or of tokens; None: there are none.
        field: the column of their text.
        teachers: the teachers of other tokenizers, by number. What a captured one has read is not read again.
        names: the names of all teachers, if each teaches only the rows that name it.

    Raises:
        UserError: a tokenizer does not give back more of the text than can be left out.
    """
    if not teachers or dataset is None or is_streamed(dataset):
        return
    ours = next(iter(teachers.values())).ours
    samples = [*_first_samples(dataset, field, ours)]
    what = f"the text of the first {len(samples):,} samples of `train_dataset`"
    for index, teacher in teachers.items():
        own = (texts for texts, sample in samples if names is None or index in numbers_of_teachers(sample, names))
        found = _figures([text for texts in own for text in texts], ours, teacher)
        captured = isinstance(teacher, CapturedSpans)
        name = "the teacher" if captured else teacher.theirs.name
        found.check_lost(ours.name, name, what)
        if captured and found.lost:
            say(f"  {what} was captured{found.lost}")
        elif not captured and found.bytes:
            say(f"  {found.told(what, name)}")


def _figures(texts: Sequence[str], ours: TokenBytes, teacher: TeacherAcross | CapturedSpans) -> AlignmentFigures:
    found = AlignmentFigures()
    if isinstance(teacher, TeacherAcross):
        for some in aligned_texts(texts, ours, teacher.theirs):
            found.add(some)
    else:
        found.add_bytes(sum(len(text.encode()) for text in texts), ours.read(texts), [])
    return found


def _first_samples(dataset: Any, field: str, ours: TokenBytes) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """The first samples with a text, each with its texts."""
    characters = 0
    for at in range(len(dataset)):
        sample = dataset[at]
        texts = texts_of(sample, field, ours) if isinstance(sample, Mapping) else []
        if texts:
            yield texts, sample
        characters += sum(map(len, texts))
        if characters > MEASURED_CHARACTERS:
            return


def texts_of(sample: Mapping[str, Any], field: str, ours: TokenBytes) -> list[str]:
    """The texts of a sample: its own, its prompt with its completion, or those of its tokens between special ones."""
    if sample.get("input_ids") is not None:
        ids = np.asarray(sample["input_ids"])
        if sample.get("attention_mask") is not None:
            ids = ids[np.asarray(sample["attention_mask"]) == 1]
        known = ids[(ids >= 0) & (ids < len(ours.each))].tolist()
        runs = groupby(known, lambda number: bool(ours.each[number]))
        found: list[Any] = [readable(ours.joined(run))[1] for is_text, run in runs if is_text]
    elif sample.get(field) is None and all(isinstance(sample.get(name), str) for name in PAIR):
        found = ["".join(sample[name] for name in PAIR)]
    else:
        found = [sample.get(field)]
    return [text for text in found if isinstance(text, str) and text]
