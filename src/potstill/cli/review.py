"""The review of a run: a person decides answers that no rule could read, and a file keeps the decisions."""

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from potstill.cli.check import finished_steps
from potstill.errors import UserError
from potstill.files.atomic import remove, write_text
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.answers.decisions import (
    NONE,
    WITHDRAWN,
    Answer,
    Decision,
    as_decision,
    csv_text,
    exported,
    in_effect,
    merged,
    queue,
    read_decisions,
    write_decisions,
)
from potstill.metrics.answers.extract import REVIEW, extract
from potstill.pipeline.run_folder import Run
from potstill.recipe.load import saved_recipe

if TYPE_CHECKING:
    from rich.console import Console

ASK = "a number, none, skip, undo or quit: "
COLUMNS_OF_ANSWERS = ("id", "question", "reference", "response")
LONGEST_SHOWN = 80
"""The greatest length of an unreadable part that is shown. Models that repeat themselves write longer ones; the
response shows all of it."""
VISIBLE = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    **dict.fromkeys([0x7F, *range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}
"""Visible replacements of characters that would move the cursor or reverse the text."""


class Record:
    """`RUN/review/decisions.csv`: the decisions of persons. It is written at once and whole, after it is read again.

    A person or a second review may edit the file meanwhile. An editor that was opened before the last decisions drops
    them when it saves; this session's decisions are then written again. While the file cannot be read, the decisions go
    to `waiting-*.csv` beside it, and the next session takes them from there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "decisions.csv"
        self.own: list[Decision] = []
        """The decisions of this session."""

    def add(self, *new: Decision) -> tuple[list[Decision], int]:
        """Record decisions. Returns all decisions, and how many of this session's were lost and written again.

        Raises:
            UserError: the file was edited and cannot be read, or it cannot be written. Its content is not changed.
        """
        before, self.own = self.own, [*self.own, *new]
        with self._alone():
            waiting = sorted(self.folder.glob("waiting-*.csv"))
            try:
                there = read_decisions(self.file)
                late = [each for file in waiting for each in read_decisions(file)]
            except UserError as error:
                raise UserError(f"{error}{self._put_aside()}") from None
            together = merged(there, [*late, *self.own])
            if together != there:
                write_decisions(self.file, together)
            for file in waiting:
                remove(file)
        return together, len(merged(there, before)) - len(there)

    def _put_aside(self) -> str:
        if not self.own:
            return ""
        file = self.folder / f"waiting-{self.own[0].when.replace(':', '')}-{os.getpid()}.csv"
        write_decisions(file, self.own)
        return f"; your decisions are in {file}, and the same command goes on from there"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"{self.file} cannot be written ({reason}); correct this and review again") from error


def answers_of(folder: Path) -> list[Answer]:
    """The answers of each model that has answered all questions of a run.

    Raises:
        UserError: the folder is not a run folder, no model has answered yet, or a file of answers is damaged.
    """
    recipe = saved_recipe(folder)
    if recipe.has_answers and not recipe.judges_numbers:
        raise UserError(f"{folder}: no answer of this run is judged by a number, so there is nothing to review")
    run, root = Run(folder), folder / "answers"
    files = [_checked(run, name) / "answers.jsonl" for name in finished_steps(folder) if name.startswith("answers/")]
    answers = [_answer(row, file.parent.relative_to(root)) for file in files for row in read_jsonl(file)]
    if not answers:
        raise UserError(f"{folder} has no answers yet; `potstill answers RECIPE` makes them")
    return answers


def _checked(run: Run, step: str) -> Path:
    """The folder of a finished step whose outputs are as they were written."""
    for name, word in run.damaged(step).items():
        raise UserError(f"{run.path(step) / name} is {word}; `potstill run RECIPE` makes it again")
    return run.path(step)


def _answer(row: dict[str, str], model: Path) -> Answer:
    return Answer(model.as_posix(), *(row[name] for name in COLUMNS_OF_ANSWERS))


def export(folder: Path, file: Path) -> None:
    """Write every answer of a run, its verdict and who decided it to a CSV (``metrics.answers.decisions.exported``).

    Raises:
        UserError: the file is there already or cannot be written; also as in ``answers_of`` and ``read_decisions``.
    """
    if file.exists():
        raise UserError(f"{file} is there already; choose another name")
    rows = exported(answers_of(folder), read_decisions(Record(folder / "review").file))
    try:
        write_text(file, csv_text(list(rows[0]), [list(row.values()) for row in rows]))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{file} cannot be written ({reason}); choose another place") from error
    print(f"{len(rows):,} answers written to {file}")


def review(folder: Path, who: str | None) -> None:
    """Ask about each response that neither a rule nor a person has decided, until none is left or the person stops.

    Args:
        folder: the run.
        who: the person who decides; None stands for the login name.

    Raises:
        UserError: as in ``answers_of`` and ``Record.add``.
    """
    answers, record = answers_of(folder), Record(folder / "review")
    unsettled = queue(answers)
    by_rules = sum(extract(each.response).rule != REVIEW for each in answers)
    settled = f"rules settled {by_rules:,} of {len(answers):,} answers"
    if not unsettled:
        print(f"nothing is left to decide: {settled}")
        return
    session = Session(unsettled, record, (who or "").strip() or _login())
    if not session.left:
        print(f"nothing is left to decide: {settled}, and persons {len(answers) - by_rules:,}")
        return
    print(
        f"{settled}; the others have {len(unsettled):,} different texts, of which {len(session.left):,} are undecided"
    )
    session.run()


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UserError("there is no login name; name the person who decides with `--who NAME`") from None


@dataclass
class Session:
    """One session of one person with a queue of answers (``metrics.answers.decisions.queue``)."""

    queue: dict[str, Answer]
    record: Record
    who: str
    skipped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.decisions, _ = self.record.add()

    @property
    def left(self) -> list[str]:
        """The keys of the undecided answers."""
        holding = in_effect(self.decisions)
        return [key for key in self.queue if key not in holding]

    def run(self) -> None:
        """Ask until nothing is left or the person stops. Each decision is on disk before the next question."""
        asked = self._next()
        try:
            while asked is not None:
                show(self.console, self.queue[asked], list(self.queue).index(asked) + 1, len(self.queue))
                asked = self._answered(asked)
        except (EOFError, KeyboardInterrupt):
            print()
        later = f", {len(self.skipped):,} of them skipped" if self.skipped else ""
        print(f"{len(self.left):,} left{later}; `potstill evaluate RECIPE` counts the decisions")

    def _next(self) -> str | None:
        return next((key for key in self.left if key not in self.skipped), None)

    def _answered(self, key: str) -> str | None:
        """Take one reply about an answer; returns the key of the next answer to ask about."""
        while True:
            reply = input(ASK).strip()
            match reply.lower():
                case "quit":
                    return None
                case "skip":
                    self.skipped.add(key)
                    return self._next()
                case "undo":
                    if back := self._taken_back():
                        return back
                case _:
                    try:
                        decision = as_decision(reply)
                    except UserError as error:
                        print(f"{error}, or {NONE}, skip, undo or quit")
                        continue
                    self._add(key, decision)
                    return self._next()

    def _taken_back(self) -> str | None:
        """Withdraw this person's last valid decision, of this or an earlier session; returns its key."""
        self._refresh()
        mine = [each for each in in_effect(self.decisions).values() if each.who == self.who and each.key in self.queue]
        if not mine:
            print(f"{self.who} has no decision to take back")
            return None
        last = mine[-1]
        self._add(last.key, WITHDRAWN)
        self.skipped.discard(last.key)
        print(f"taken back: {last.decision}, decided {last.when}")
        return last.key

    def _add(self, key: str, decision: str) -> None:
        self._refresh(Decision.about(self.queue[key], decision, self.who, datetime.now(UTC).isoformat()))

    def _refresh(self, *new: Decision) -> None:
        self.decisions, restored = self.record.add(*new)
        if restored:
            print(f"{restored:,} of this session's decisions were missing in {self.record.file} and were written again")


def show(console: "Console", answer: Answer, place: int, places: int) -> None:
    """Show question, response, reference solution and the unreadable part; the model's name stays hidden."""
    from rich.rule import Rule
    from rich.text import Text

    unread = _visible(extract(answer.response).text)
    response = Text(_visible(answer.response))
    response.highlight_words([unread] if unread else [], "bold reverse")
    console.print()
    console.print(Rule(f"{place:,} of {places:,}") if console.is_terminal else f"{place:,} of {places:,}")
    parts = {"question": Text(_visible(answer.question)), "response": response}
    for title, text in {**parts, "reference solution": Text(_visible(answer.reference))}.items():
        console.print(Text(title, style="bold cyan"))
        console.print(text)
        console.print()
    short = unread if len(unread) <= LONGEST_SHOWN else f"{unread[:LONGEST_SHOWN]}…"
    console.print(Text(f"this cannot be read: {short}" if unread else "no number was found in the response"))


def _visible(text: str) -> str:
    return text.replace("\r\n", "\n").translate(VISIBLE)
