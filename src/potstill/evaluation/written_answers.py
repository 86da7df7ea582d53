"""Written answers: judges what models wrote to the same prompts by references that need not hold a number.

The prompts are the held-out conversations up to their last turn, or the held-out questions of a recipe with
`answers.number: false`. Makes `answers.json`, the scores of each answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from potstill.console import say
from potstill.evaluation.answers import pairs_of_students, parts_of_questions, sums_of_answers
from potstill.evaluation.candidate_models import Measurement, own_models, pairs_to_compare
from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.evaluation.taught_items import by_part, told
from potstill.files.atomic import read_json, write_json
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.bootstrap import Resampling, Sums
from potstill.metrics.comparison import compare
from potstill.metrics.continuations.similarity import check_rouge, check_sentences, sentence_encoder, sentence_model
from potstill.metrics.conversations.answers import AnswerScorer, ReferenceAnswer, WrittenAnswer
from potstill.pipeline import artifacts
from potstill.pipeline.steps import answers_steps
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import reads_other_tokens
from potstill.recipe.step import Step

ModelSums = Mapping[str, Sums]
"""The sums of one model of one seed, by metric."""


def check(recipe: Recipe) -> None:
    """Refuse missing libraries and a missing sentence model, before any step runs.

    Raises:
        UserError: naming the key, and what to install or to leave out.
    """
    if not recipe.has_answers or recipe.judges_numbers:
        return
    check_rouge("answers")
    if recipe.answers.sentences is not None:
        check_sentences("answers.sentences")
        sentence_model(recipe.answers.sentences, "answers.sentences")


def measure(work: Work) -> Measurement:
    """Judge the answers of every model, and compare the models."""
    # In the order of their ids, as answers that are judged by a number: intervals of the loss are the same then.
    recipe, asked = work.recipe, dict(sorted(_references(work).items()))
    encode = None
    if recipe.answers.sentences is not None:
        encode = sentence_encoder(recipe.answers.sentences, "answers.sentences")
    scorer = AnswerScorer(list(asked.values()), encode)
    scores: dict[str, list[ModelSums]] = {}
    for step in answers_steps(recipe):
        assert step.candidate is not None
        scores.setdefault(step.candidate.label, []).append(_judge(work, step, list(asked), scorer))
    parts = parts_of_questions(work) if recipe.asks else None
    resampling = Resampling(recipe.evaluate.confidence, recipe.evaluate.resamples)
    of_metric = {model: [SumsByMetric(each) for each in seeds] for model, seeds in scores.items()}
    judged, metrics = by_part(of_metric, parts, list(scores["start"][0]))
    rows, pairs = compare(judged, _pairs(work), metrics, sums_of_answers(recipe, judged), resampling)
    file = work.folder / "answers.json"
    write_json(file, {"id": list(asked), "scores": {model: [*map(_by_answer, each)] for model, each in scores.items()}})
    calls = f", {scorer.calls:,} of which call a tool" if scorer.calls else ""
    prompts = "questions" if recipe.asks else "conversations"
    made = f"{sum(map(len, scores.values()))} models' answers to {len(asked):,} held-out {prompts}{calls}"
    say(f"  {made}")
    limit = recipe.answers.max_new_tokens
    longer = sum(reference.tokens >= limit for reference in asked.values())
    if longer:
        say(f"  {longer:,} references are longer than `answers.max_new_tokens: {limit:,}`; no answer can be as long")
    return Measurement(rows, pairs, outputs=[file], summary={"answers": len(asked), "made": made}, more=told(parts))


@dataclass(frozen=True)
class SumsByMetric:
    """The sums of one model for each metric."""

    found: ModelSums

    def sums(self, metric: str) -> Sums:
        """Numerator and denominator of a metric for each answer."""
        return self.found[metric]


def _references(work: Work) -> dict[str, ReferenceAnswer]:
    """The reference of each prompt, by the prompt's id."""
    if work.recipe.chats:
        return {
            one.id: ReferenceAnswer(one.reference, one.reference_tokens, one.conversation.tools)
            for one in held_out_prompts(work)
        }
    tokenizer = artifacts.tokenizer(work)
    questions = {row["id"]: row["reference"] for row in artifacts.questions(work, "held_out")}
    return {each: ReferenceAnswer(text, len(_ids(tokenizer, text))) for each, text in questions.items()}


def _pairs(work: Work) -> list[tuple[str, str]]:
    """Each student with each model that it is compared with."""
    if work.recipe.asks:
        return pairs_of_students(work)
    return pairs_to_compare(work, own_models(work))


def _judge(work: Work, step: Step, asked: Sequence[str], scorer: AnswerScorer) -> ModelSums:
    folder, tokenizer = work.run.path(step), artifacts.tokenizer(work)
    rows = {row["id"]: row for row in read_jsonl(folder / "answers.jsonl")}
    assert rows.keys() == set(asked), f"{folder}: the answers are to other prompts"
    assert step.candidate is not None
    # Lengths are in the run's tokens, also those of a teacher that writes other tokens.
    others = reads_other_tokens(work.recipe, step.candidate)
    answers = []
    for row in (rows[each] for each in asked):
        ids = _ids(tokenizer, row["response"])
        answers.append(WrittenAnswer(row["response"], ids, len(ids) if others else row["tokens"], not row["hit_limit"]))
    found = scorer(answers)
    return {**_loss(folder, asked), **found} if work.recipe.asks and not others else found


def _loss(folder: Path, asked: Sequence[str]) -> ModelSums:
    """Nats per token of the reference solutions."""
    scores = read_json(folder / "scores.json")
    order = [scores["id"].index(each) for each in asked]
    nll, tokens = (np.asarray(scores[name])[order] for name in ("nll", "tokens"))
    return {"loss": Sums(nll, tokens, can_exceed_one=True)}


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _by_answer(scores: ModelSums) -> dict[str, list[float | None]]:
    """Each metric of each answer; None where an answer has none."""
    return {
        metric: [one / other if other else None for one, other in zip(*map(_floats, sums), strict=True)]
        for metric, sums in ((metric, (each.numerator, each.denominator)) for metric, each in scores.items())
    }


def _floats(values: ArrayLike) -> list[float]:
    return list(np.asarray(values, float).tolist())
