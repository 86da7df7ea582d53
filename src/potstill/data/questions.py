"""Questions with worked solutions: reads them from their sources and splits them for training and evaluation."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import UndefinedError

from potstill.data.row_teachers import RowTeachers, Teachers
from potstill.data.sources import SourceRow, rows
from potstill.errors import UserError, first_line
from potstill.recipe.questions import GeneratedQuestions, HeldOutQuestions, Questions, QuestionSource
from potstill.recipe.strategies import fields_of, rendered


@dataclass(frozen=True)
class Question:
    """A question, its worked solution, and all columns of its row."""

    id: str
    """Its place in its source: `train.jsonl:7`."""
    question: str
    reference: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    teachers: Teachers = ()
    """Its teachers, where rows have teachers of their own."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that prompts may use."""
        return {**self.columns, "question": self.question, "reference": self.reference}


@dataclass(frozen=True)
class QuestionSplit:
    """The distinct questions of a corpus; each part is in the order of the questions' hashes."""

    train: list[Question]
    validation: list[Question]
    held_out: list[Question]
    repeated: int
    """The number of questions left out because they repeat an earlier or a held-out question."""


def split_questions(corpus: Questions, taught: RowTeachers | None = None) -> QuestionSplit:
    """Read and split the questions.

    The hash of a question's text decides its part and its place, as for documents (``splitting.py``).

    Args:
        corpus: the recipe's section.
        taught: says which teachers a row has; None where rows have none of their own.

    Raises:
        UserError: a source is missing or cannot be read, a row has no question or no reference, or a part is empty.
    """
    read = list(_read(corpus.questions, "corpus.questions", taught))
    train, repeated = _distinct(read), 0
    if isinstance(corpus.held_out, HeldOutQuestions):
        own = None if taught is None else RowTeachers(taught.rules)
        held_out = _distinct(_read(corpus.held_out.questions, "corpus.held_out.questions", own))
        kept = {hashed: question for hashed, question in train.items() if hashed not in held_out}
        limit = corpus.held_out.count
    else:
        share = corpus.held_out * 2**64
        held_out = {hashed: each for hashed, each in train.items() if int.from_bytes(hashed[:8], "big") < share}
        kept = {hashed: each for hashed, each in train.items() if hashed not in held_out}
        repeated, limit = -len(held_out), None
    ordered, judged = _in_order(kept), _in_order(held_out)[:limit]
    aside = corpus.validation or 0
    split = QuestionSplit(ordered[aside:][: corpus.train], ordered[:aside], judged, len(read) - len(kept) + repeated)
    for name, part in (("train on", split.train), ("hold out", split.held_out)):
        if len(part) < (2 if name == "hold out" else 1):
            raise UserError(
                f"`corpus.questions` give {len(read):,} questions, which leaves {len(part)} to {name}; give more of "
                "them, or another `corpus.held_out` or `corpus.validation`"
            )
    return split


def _read(sources: Sequence[QuestionSource], key: str, taught: RowTeachers | None) -> Iterator[Question]:
    for index, source in enumerate(sources):
        where = f"{key}.{index}"
        found = _generated(source, where) if isinstance(source, GeneratedQuestions) else rows(source, where)
        for row in found:
            question = _rendered(source.question, row, f"{where}.question")
            reference = _rendered(source.reference, row, f"{where}.reference")
            teachers = () if taught is None else taught.of(source, row.columns)
            yield Question(row.where, question, reference, row.columns, teachers)


def _rendered(template: str, row: SourceRow, key: str) -> str:
    columns = {name: value for name, value in row.columns.items() if value is not None}
    try:
        text = rendered(template, columns).strip()
    except UndefinedError as error:
        unknown = sorted(fields_of(template) - set(columns))
        wrong = f"uses `{unknown[0]}`" if unknown else f"cannot be filled in ({first_line(error)})"
        named = ", ".join(columns) or "none"
        raise UserError(f"{row.where}: `{key}` {wrong}, and the columns are {named}; name one of them") from None
    except Exception as error:  # a template can raise any exception
        raise UserError(f"{row.where}: `{key}` cannot be filled in ({first_line(error)}); correct it") from error
    if not text:
        what = key.rpartition(".")[2]
        raise UserError(f"{row.where}: the row has no {what} (`{key}` comes out blank); leave the row out")
    return text


def _generated(source: GeneratedQuestions, key: str) -> Iterator[SourceRow]:
    try:
        import reasoning_gym
    except ImportError as error:
        raise UserError(
            f"`{key}.generator` needs reasoning-gym, which cannot be imported ({first_line(error)}); pip install "
            "'potstill[questions]'"
        ) from error
    try:
        made = reasoning_gym.create_dataset(source.generator, size=source.count, seed=source.seed, **source.settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"`{key}`: reasoning-gym cannot make {source.generator!r}: {first_line(error)}") from error
    for number in range(source.count):
        origin = f"{source.generator}-{source.seed}"
        yield SourceRow(made[number], f"{origin}:{number + 1}", origin)


def _distinct(questions: Sequence[Question] | Iterator[Question]) -> dict[bytes, Question]:
    found: dict[bytes, Question] = {}
    for each in questions:
        found.setdefault(hashlib.blake2b(each.question.encode(), digest_size=16).digest(), each)
    return found


def _in_order(questions: Mapping[bytes, Question]) -> list[Question]:
    # The first bytes may have decided the part already.
    return [questions[hashed] for hashed in sorted(questions, key=lambda hashed: hashed[8:])]
