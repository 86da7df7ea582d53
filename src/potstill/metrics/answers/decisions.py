"""What persons decide about responses that no rule settles: what is asked, how it is recorded, and what it counts.

A decision belongs to a question and a response, word for word, and to no model: it says which number that response
states. It holds for every model and seed that wrote the same, and still does when responses are generated again.

The record is a log: a decision that is taken back stays in it, and so does who took it back and when. Of several that
hold for one response, the last counts.
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
"""The rule of a response that a person decided."""
NONE = "none"
"""The decision that a response states no answer. In an export, -1 stands for it, as in the published logs."""
WITHDRAWN = "withdrawn"
"""What takes a decision back."""


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
        """What decisions about it are found by: a digest of question and response, whatever ends their lines.

        Of the question's text and not of its id, because an id says where a question stood in its source.
        """
        return digest([text.replace("\r\n", "\n").replace("\r", "\n") for text in (self.question, self.response)])


@dataclass(frozen=True)
class Decision:
    """A row of the record; question and response are in it so that it can be read by itself."""

    key: str
    id: str
    decision: str
    """A number as it was written, or ``NONE``, or ``WITHDRAWN``."""
    who: str
    when: str
    """ISO 8601, UTC."""
    question: str
    response: str

    @classmethod
    def about(cls, answer: Answer, decision: str, who: str, when: str) -> "Decision":
        """A new row, and what it was about."""
        return cls(answer.key, answer.id, decision, who, when, answer.question, answer.response)


COLUMNS = tuple(field.name for field in fields(Decision))


def queue(answers: Iterable[Answer]) -> dict[str, Answer]:
    """What no rule settles, by key and in the order of keys, each question and response once.

    That order is the same every time and says nothing of which model wrote what.
    """
    unsettled = {each.key: each for each in answers if extract(each.response).rule == REVIEW}
    return dict(sorted(unsettled.items()))


def in_effect(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """What holds, by key, the latest decision last."""
    holding: dict[str, Decision] = {}
    for each in decisions:
        holding.pop(each.key, None)
        if each.decision != WITHDRAWN:
            holding[each.key] = each
    return holding


def decided(answers: Sequence[Answer], decisions: Iterable[Decision]) -> list[Extracted]:
    """The answer in each response: by the rules, and where none settles it by the person who did, if one did."""
    holding, extracted = in_effect(decisions), [extract(each.response) for each in answers]
    for place, answer in enumerate(answers):
        if extracted[place].rule == REVIEW and answer.key in holding:
            decision = holding[answer.key].decision
            extracted[place] = Extracted(PERSON, number(decision), decision)
    return extracted


def number(decision: str) -> Fraction | None:
    """The value of a decision that holds; None where it is that there is no answer."""
    return None if decision == NONE else _number(decision)


def as_decision(typed: str) -> str:
    """A number or ``NONE`` as the record has it.

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
    """Every answer, what it counts and who decided it; ``answer`` is -1 for none, and blank until it is decided.

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
    """A number exactly: as a decimal where that is exact, else as a fraction; nothing where there is none."""
    if value is None:
        return ""
    text = format(Decimal(value.numerator) / value.denominator, "f")
    return text if Fraction(text) == value else str(value)


def merged(decisions: Sequence[Decision], more: Iterable[Decision]) -> list[Decision]:
    """``decisions``, and what of ``more`` is not among them; one about the same response at the same time is."""
    there = {(each.key, each.when) for each in decisions}
    return [*decisions, *(each for each in more if (each.key, each.when) not in there)]


def read_decisions(file: Path) -> list[Decision]:
    """A record in the order in which it was written; empty where there is no such file.

    Raises:
        UserError: something in it is no decision; names the line and says what is wrong with it.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise UserError(f"{file} is not in UTF-8; save it as a CSV in UTF-8") from None
    return _parsed(text, file) if text.strip() else []


def write_decisions(file: Path, decisions: Iterable[Decision]) -> None:
    """Write a record whole or not at all."""
    write_text(file, csv_text(COLUMNS, (astuple(each) for each in decisions)))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A CSV as spreadsheets and RFC 4180 have it."""
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([columns, *rows])
    return stream.getvalue()


def _parsed(text: str, file: Path) -> list[Decision]:
    csv.field_size_limit(sys.maxsize)  # A response may be longer than the 128 kB that are a field's limit else.
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
        raise UserError(f"{file}, line {line}: {error}; mend it") from None
    return decisions


def _decision(cells: Sequence[str]) -> Decision:
    if len(cells) != len(COLUMNS):
        raise UserError(f"{len(cells)} columns in place of {len(COLUMNS)}")
    row = Decision(*cells)
    if row.key != Answer("", row.id, row.question, "", row.response).key:
        raise UserError("the key is not that of this question and response, so one of the three was changed")
    if not row.who.strip():
        raise UserError("`who` is blank")
    try:
        datetime.fromisoformat(row.when)
    except ValueError:
        raise UserError(f"`when` is {row.when!r}, and no date and time like 2026-01-31T12:00:00+00:00") from None
    said = row.decision.strip().lower()
    try:
        return replace(row, decision=WITHDRAWN if said == WITHDRAWN else as_decision(row.decision))
    except UserError as error:
        raise UserError(f"`decision`: {error}, or none, or withdrawn") from None


def _number(said: str) -> Fraction | None:
    """The value where all that is said is one number, with its currency or percent sign."""
    found = list(numbers(said))
    whole = len(found) == 1 and said.rstrip(" .%") == found[0].text.rstrip(".")
    return found[0].value if whole else None
