"""Decisions: people decide which number a response states when no rule can tell.

A decision belongs to the exact text of a question and a response, not to a model. It is valid for every model and seed
that wrote the same response, and stays valid when responses are generated again.

The record is a log: a withdrawn decision stays in it, and so does who withdrew it and when. If there are several
decisions about one response, the last one counts.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from potstill.errors import UserError
from potstill.files.atomic import digest, write_text
from potstill.metrics.answers.extract import REVIEW, Extracted, extract, reference, verdict
from potstill.metrics.answers.numbers import numbers

PERSON = "person"
"""The rule's name for a response that a person decided."""
NONE = "none"
"""The decision that a response states no answer. An export writes it as -1, as the published logs do."""
WITHDRAWN = "withdrawn"
"""The decision that withdraws an earlier one."""


@dataclass(frozen=True)
class Answer:
    """A model's response to a held-out question, and the question's reference solution."""

    model: str
    id: str
    question: str
    reference: str
    response: str

    @property
    def key(self) -> str:
        """The key of decisions about it: a digest of question and response; the kind of line end does not matter.

        The digest has the question's text, not its id, because an id depends on the place in the source.
        """
        return digest([text.replace("\r\n", "\n").replace("\r", "\n") for text in (self.question, self.response)])


@dataclass(frozen=True)
class Decision:
    """A row of the record. It has question and response, so that people can read the record alone."""

    key: str
    id: str
    decision: str
    """A number as the person wrote it, or ``NONE``, or ``WITHDRAWN``."""
    who: str
    when: str
    """ISO 8601, UTC."""
    question: str
    response: str

    @classmethod
    def about(cls, answer: Answer, decision: str, who: str, when: str) -> "Decision":
        """A new decision about an answer."""
        return cls(answer.key, answer.id, decision, who, when, answer.question, answer.response)


COLUMNS = tuple(field.name for field in fields(Decision))


def queue(answers: Iterable[Answer]) -> dict[str, Answer]:
    """The answers that no rule settles, by key in the order of keys; each question with its response occurs once.

    The order is the same every time and does not reveal which model wrote which response.
    """
    unsettled = {each.key: each for each in answers if extract(each.response).rule == REVIEW}
    return dict(sorted(unsettled.items()))


def in_effect(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The valid decisions by key, the latest last."""
    holding: dict[str, Decision] = {}
    for each in decisions:
        holding.pop(each.key, None)
        if each.decision != WITHDRAWN:
            holding[each.key] = each
    return holding


def decided(answers: Sequence[Answer], decisions: Iterable[Decision]) -> list[Extracted]:
    """The answer in each response: by the rules or, if no rule settles it, by a person's decision."""
    holding, extracted = in_effect(decisions), [extract(each.response) for each in answers]
    for place, answer in enumerate(answers):
        if extracted[place].rule == REVIEW and answer.key in holding:
            decision = holding[answer.key].decision
            extracted[place] = Extracted(PERSON, number(decision), decision)
    return extracted


def number(decision: str) -> Fraction | None:
    """The value of a valid decision; None if it is that there is no answer."""
    return None if decision == NONE else _number(decision)


def as_decision(typed: str) -> str:
    """A typed number or ``NONE``, as the record writes it.

    Raises:
        UserError: it is neither.
    """
    said = typed.strip()
    if said.lower() == NONE:
        return NONE
    if _number(said) is None:
        raise UserError(f"{said!r} is no number; write one like 18, -3, 0.5, 1/2 or 1,000")
    return said


def exported(answers: Sequence[Answer], decisions: Sequence[Decision]) -> list[dict[str, str]]:
    """Every answer with its verdict and who decided it; ``answer`` is -1 for none, and blank until it is decided.

    Raises:
        UserError: a reference solution does not end in a number.
    """
    holding, rows = in_effect(decisions), []
    for answer, extracted in zip(answers, decided(answers, decisions), strict=True):
        truth = reference(answer.reference)
        found = verdict(extracted, truth)
        by = holding[answer.key] if extracted.rule == PERSON else None
        rows.append(
            {
                "model": answer.model,
                "id": answer.id,
                "question": answer.question,
                "reference": written(truth),
                "rule": extracted.rule,
                "answer": {"no answer": "-1", "needs review": ""}.get(found) or written(extracted.value),
                "verdict": found,
                "decided_by": by.who if by else "",
                "decided_when": by.when if by else "",
            }
        )
    return rows


def written(value: Fraction | None) -> str:
    """A number exactly: as a decimal if that is exact, else as a fraction; an empty text for None."""
    if value is None:
        return ""
    text = format(Decimal(value.numerator) / value.denominator, "f")
    return text if Fraction(text) == value else str(value)


def merged(decisions: Sequence[Decision], more: Iterable[Decision]) -> list[Decision]:
    """``decisions`` and the new ones of ``more``. Decisions about one response at the same time are the same one."""
    there = {(each.key, each.when) for each in decisions}
    return [*decisions, *(each for each in more if (each.key, each.when) not in there)]


def read_decisions(file: Path) -> list[Decision]:
    """The record in the order in which it was written; empty if there is no such file.

    Raises:
        UserError: a row is not a decision; names the line and says what is wrong.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8; save it as CSV in UTF-8") from None
    return _parsed(text, file) if text.strip() else []


def write_decisions(file: Path, decisions: Iterable[Decision]) -> None:
    """Write a record whole or not at all."""
    write_text(file, csv_text(COLUMNS, (astuple(each) for each in decisions)))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A CSV for spreadsheets, by RFC 4180."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([columns, *rows])
    return stream.getvalue()


def _parsed(text: str, file: Path) -> list[Decision]:
    csv.field_size_limit(sys.maxsize)  # By default a field may have 128 kB, and a response may be longer.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    decisions: list[Decision] = []
    line, header = 1, True
    try:
        for cells in reader:
            if header and tuple(cells) != COLUMNS:
                raise UserError(f"its columns must be {', '.join(COLUMNS)}, with commas between them")
            if cells and not header:
                decisions.append(_decision(cells))
            line, header = reader.line_num + 1, False
    except (csv.Error, UserError) as error:
        raise UserError(f"{file}, line {line}: {error}; correct it") from None
    return decisions


def _decision(cells: Sequence[str]) -> Decision:
    if len(cells) != len(COLUMNS):
        raise UserError(f"{len(cells)} columns instead of {len(COLUMNS)}")
    row = Decision(*cells)
    if row.key != Answer("", row.id, row.question, "", row.response).key:
        raise UserError("the key does not belong to this question and response: one of the three was changed")
    if not row.who.strip():
        raise UserError("`who` is blank")
    try:
        datetime.fromisoformat(row.when)
    except ValueError:
        raise UserError(f"`when` is {row.when!r}, not a date and time like 2026-01-31T12:00:00+00:00") from None
    said = row.decision.strip().lower()
    try:
        return replace(row, decision=WITHDRAWN if said == WITHDRAWN else as_decision(row.decision))
    except UserError as error:
        raise UserError(f"`decision`: {error}, or none, or withdrawn") from None


def _number(said: str) -> Fraction | None:
    """The value if the text is one number, with its currency or percent sign; else None."""
    found = list(numbers(said))
    whole = len(found) == 1 and said.rstrip(" .%") == found[0].text.rstrip(".")
    return found[0].value if whole else None
