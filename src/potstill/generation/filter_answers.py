"""Filter answers: chooses the teacher's responses to learn from, and records the provenance of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from potstill.errors import UserError
from potstill.generation.answer_rules import fault, nearest
from potstill.generation.decoding import Key
from potstill.generation.generate import Response
from potstill.metrics.answers.extract import extract, reference, verdict
from potstill.recipe.generate import Generate


@dataclass(frozen=True)
class AnswerCounts:
    """Counts of questions and of the responses to them."""

    questions: int
    responses: int
    answered: int
    """Responses that are not blank."""
    hit_limit: int
    """Responses that reached the limit of tokens without an end token."""
    correct: int | None
    """Responses with the final answer of the reference solution; some of them may have hit the limit. None: references
    have no final answer."""
    outside_rules: int
    """Whole responses that `matching`, `shortest` or `longest` leave out."""
    repeated: int
    """Responses left out only because they repeat an earlier response to the same question."""
    kept: int
    questions_kept: int
    """Questions with at least one kept response."""

    def __str__(self) -> str:
        """One line for the console."""
        correct = "" if self.correct is None else f"{self.correct:,} correct, "
        outside = f"{self.outside_rules:,} against the rules, " if self.outside_rules else ""
        return (
            f"{self.kept:,} of {self.responses:,} answers kept, to {self.questions_kept:,} of {self.questions:,} "
            f"questions ({self.answered:,} not blank, {self.hit_limit:,} hit the limit, {correct}{outside}"
            f"{self.repeated:,} repeated)"
        )


def kept_answers(
    questions: Mapping[str, dict[str, Any]],
    responses: Sequence[Response],
    generate: Generate,
    prompt_fingerprint: str,
    by_number: bool = True,
) -> tuple[list[dict[str, Any]], AnswerCounts]:
    """The responses to learn from, in the order of the questions and their samples.

    A response that hit the limit of tokens is never kept, because the student would learn an end where there was none.

    Args:
        questions: by its id, each question's `reference` and any other columns to keep in its rows.
        responses: all responses, in any order.
        generate: the recipe's section.
        prompt_fingerprint: the fingerprint of the teacher's prompt (``data.prompts.render.template_fingerprint``).
        by_number: whether the references have a final answer, by which responses are judged.

    Returns:
        rows: the question's columns with `id`, `answer` (the text to learn) and `provenance`: `teacher`, `strategy`,
            `prompt_fingerprint`, `sample`, `seed`, `tokens`, and, of judged ones, `rule` and `verdict` of
            ``metrics.answers.extract``.
        summary: the counts.

    Raises:
        UserError: a reference has no final answer, or no response can be kept; the message says why.
    """
    order = {question: at for at, question in enumerate(questions)}
    truths = {question: _truth(question, row) for question, row in questions.items()} if by_number else {}
    asked = {"teacher": generate.by, "strategy": generate.strategy, "prompt_fingerprint": prompt_fingerprint}
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    correct = repeated = 0
    faults = {one.key: fault(one, generate) for one in responses}
    nearest_ones = _nearest_of_each(questions, responses, faults) if generate.keep == "nearest" else None
    for one in sorted(responses, key=lambda one: (order[one.id], one.sample)):
        judged = _judged(one, truths[one.id]) if by_number else {}
        is_correct = judged.get("verdict") == "correct"
        correct += is_correct
        if faults[one.key] or (generate.keep == "correct" and not is_correct):
            continue
        if nearest_ones is not None and one.key not in nearest_ones:
            continue
        said = one.id, one.response.strip()
        if said in seen:
            repeated += 1
            continue
        seen.add(said)
        written = {"sample": one.sample, "seed": generate.seed, "tokens": one.tokens}
        provenance = {**asked, **written, **judged}
        rows.append({**questions[one.id], "id": one.id, "answer": one.response, "provenance": provenance})
    found = {"correct": correct if by_number else None, "repeated": repeated}
    summary = _counted(len(questions), responses, faults, rows, **found)
    if not rows:
        raise UserError(_why_none(summary, generate, ended=any(map(_is_whole, responses))))
    return rows, summary


def _counted(
    questions: int,
    responses: Sequence[Response],
    faults: Mapping[Key, str | None],
    rows: Sequence[Mapping[str, Any]],
    **found: Any,
) -> AnswerCounts:
    return AnswerCounts(
        questions=questions,
        responses=len(responses),
        answered=sum(bool(one.response.strip()) for one in responses),
        hit_limit=sum(one.hit_limit for one in responses),
        outside_rules=sum(faults[one.key] is not None and _is_whole(one) for one in responses),
        kept=len(rows),
        questions_kept=len({row["id"] for row in rows}),
        **found,
    )


def _truth(question: str, row: dict[str, Any]) -> Fraction:
    try:
        return reference(row["reference"])
    except UserError as error:
        raise UserError(f"question {question}: {error}") from error


def _judged(one: Response, truth: Fraction) -> dict[str, str]:
    extracted = extract(one.response)
    return {"rule": extracted.rule, "verdict": verdict(extracted, truth)}


def _nearest_of_each(
    questions: Mapping[str, dict[str, Any]], responses: Sequence[Response], faults: Mapping[Key, str | None]
) -> set[Key]:
    usable: dict[str, list[Response]] = {}
    for one in sorted(responses, key=lambda one: one.sample):
        if not faults[one.key]:
            usable.setdefault(one.id, []).append(one)
    return {nearest(ones, questions[name]["reference"]).key for name, ones in usable.items()}


def _is_whole(one: Response) -> bool:
    return not one.hit_limit and bool(one.response.strip())


def _why_none(summary: AnswerCounts, generate: Generate, *, ended: bool) -> str:
    who = f"teacher {generate.by!r}"
    if not summary.answered:
        return (
            f"`generate`: {who} gave only blank answers to {summary.questions:,} questions; ask it under another "
            "`prompt`, or ask another teacher"
        )
    if not ended:
        return (
            f"`generate.max_new_tokens`: no answer of {who} ended within {generate.max_new_tokens:,} tokens, and "
            "unfinished answers are not learned; raise it, or ask for short answers in the `prompt`"
        )
    if summary.outside_rules and generate.keep != "correct":
        return (
            f"`generate` keeps no answer of {who}: {summary.outside_rules:,} of {summary.responses:,} ended within the "
            "limit, and none of them obeys `matching`, `shortest` and `longest`; loosen them"
        )
    unusable = "none is correct" if not summary.correct else "those that are correct did not end within the limit"
    return (
        f"`generate.keep: correct` keeps no answer of {who}: of {summary.responses:,} to {summary.questions:,} "
        f"questions, {unusable}; keep `all`, ask under another `prompt`, or ask another teacher"
    )
