"""Answers: judges the models' answers to the held-out questions, and compares the models."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.console import say
from potstill.data.row_teachers import TEACHERS
from potstill.evaluation.candidate_models import Measurement
from potstill.evaluation.taught_items import by_part, parts_of_items, told
from potstill.files.atomic import read_json, write_text
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.answers.decisions import Answer, decided, read_decisions, written
from potstill.metrics.answers.extract import REVIEW, reference, verdict
from potstill.metrics.bootstrap import Resampling, Sums
from potstill.metrics.comparison import compare
from potstill.metrics.taught_parts import ItemScores, TaughtParts
from potstill.pipeline import artifacts
from potstill.pipeline.steps import answers_steps
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import reads_other_tokens
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step

METRICS = ("accuracy", "loss", "hit_limit", "no_number")
"""The share of right answers; nats per token of the reference solutions; the share of answers that were cut at the
limit; the share of answers in which neither a rule nor a person found a number."""


@dataclass(frozen=True)
class JudgedAnswers:
    """The results of one model of one seed for U questions, in the order of their ids. All arrays are [U]."""

    right: NDArray[np.float64]
    hit_limit: NDArray[np.float64]
    no_number: NDArray[np.float64]
    nll: NDArray[np.float64] | None
    """None for a teacher of other tokens, whose loss per token is of these."""
    tokens: NDArray[np.float64] | None
    undecided: int
    """Answers that wait for a person; they count as wrong."""

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each question, [U] each."""
        if metric == "loss":
            assert self.nll is not None, "`sums_of_answers` asks for no such loss"
            assert self.tokens is not None
            return Sums(self.nll, self.tokens, can_exceed_one=True)
        numerator = {"accuracy": self.right, "hit_limit": self.hit_limit, "no_number": self.no_number}[metric]
        return Sums(numerator, np.ones(len(numerator)))


def measure(work: Work) -> Measurement:
    """Judge every answer, and compare the models."""
    recipe = work.recipe
    models = judge_all(work)
    questions = len(next(iter(models.values()))[0].right)
    resampling = Resampling(recipe.evaluate.confidence, recipe.evaluate.resamples)
    parts = parts_of_questions(work)
    scores, metrics = by_part(models, parts, METRICS)
    rows, pairs = compare(scores, pairs_of_students(work), metrics, sums_of_answers(recipe, scores), resampling)
    waiting = {model: [each.undecided for each in seeds] for model, seeds in models.items()}
    undecided = sum(map(sum, waiting.values()))
    if undecided:
        say(f"  {undecided:,} answers that no rule settles count as wrong; `potstill review {work.run.folder}`")
    made = f"{sum(map(len, models.values()))} models on {questions:,} held-out questions"
    more = f", {undecided:,} answers undecided" if undecided else ""
    return Measurement(
        rows,
        pairs,
        outputs=[work.folder / "verdicts"],
        summary={"questions": questions, "undecided": undecided, "made": made + more},
        more={"undecided": waiting, **told(parts)},
    )


def parts_of_questions(work: Work) -> TaughtParts | None:
    """The parts of the held-out questions, in the order of their ids; None where all teachers teach every one."""
    questions = sorted(artifacts.questions(work, "held_out"), key=lambda row: row["id"])
    return parts_of_items(work.recipe, [row.get(TEACHERS) for row in questions])


def judge_all(work: Work) -> dict[str, list[JudgedAnswers]]:
    """The results of every model, by its name in the comparison, with one entry for each seed of its training."""
    found: dict[str, list[JudgedAnswers]] = {}
    for step in answers_steps(work.recipe):
        assert step.candidate is not None
        found.setdefault(step.candidate.label, []).append(_judge(work, step.candidate))
    return found


def _judge(work: Work, candidate: Candidate) -> JudgedAnswers:
    name = candidate.folder
    folder = work.run.path(Step("answers", candidate=candidate))
    rows = sorted(read_jsonl(folder / "answers.jsonl"), key=lambda row: row["id"])
    answers = [Answer(name, *(row[key] for key in ("id", "question", "reference", "response"))) for row in rows]
    extracted = decided(answers, read_decisions(work.run.path("review") / "decisions.csv"))
    verdicts = [verdict(one, reference(answer.reference)) for one, answer in zip(extracted, answers, strict=True)]
    lines = (
        {"id": row["id"], "rule": one.rule, "answer": written(one.value), "read": one.text, "verdict": said}
        for row, one, said in zip(rows, extracted, verdicts, strict=True)
    )
    file = work.folder / "verdicts" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    nll, tokens = (None, None) if reads_other_tokens(work.recipe, candidate) else _scores(folder, rows)
    return JudgedAnswers(
        right=_zeros_and_ones(said == "correct" for said in verdicts),
        hit_limit=_zeros_and_ones(row["hit_limit"] for row in rows),
        no_number=_zeros_and_ones(one.value is None for one in extracted),
        nll=nll,
        tokens=tokens,
        undecided=sum(one.rule == REVIEW for one in extracted),
    )


def _scores(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The nats and tokens of each reference."""
    scores = read_json(folder / "scores.json")
    order = np.argsort(scores["id"])
    assert [row["id"] for row in rows] == [scores["id"][at] for at in order], (
        f"{folder}: answers and scores are of different questions"
    )
    return np.asarray(scores["nll"])[order], np.asarray(scores["tokens"])[order]


def _zeros_and_ones(true: Any) -> NDArray[np.float64]:
    return np.asarray(list(true), float)


def pairs_of_students(work: Work) -> list[tuple[str, str]]:
    """Each student with the models that it is compared with.

    They are the start (no distillation), the control (fine-tuning), and the placebo of the same strategy.
    """
    recipe, controls = work.recipe, ["start", *(["control"] if work.recipe.control is not None else [])]
    sample_sets = {Candidate("student", name).label: recipe.sample_set_of(name) for name in recipe.variants}
    placebos = {
        student: [
            other
            for other, its in sample_sets.items()
            if sample_set.own and not its.own and its.strategy == sample_set.strategy
        ]
        for student, sample_set in sample_sets.items()
    }
    return [(student, other) for student in sample_sets for other in (*controls, *placebos[student])]


def sums_of_answers(recipe: Recipe, models: Mapping[str, Sequence[ItemScores]]) -> Callable[[str, str], Sequence[Sums]]:
    """Gives the sums of a model for a metric, one for each seed; none for the loss of a teacher of other tokens."""

    def sums(model: str, metric: str) -> Sequence[Sums]:
        others = reads_other_tokens(recipe, Candidate.from_label(model))
        if others and metric.partition("/")[0] == "loss":
            return []
        return [one.sums(metric) for one in models[model]]

    return sums
