"""answers: every model answers the same prompts: the held-out questions, or the held-out conversations.

Makes `answers/ROLE/[NAME/][seed-N/]answers.jsonl`, one line for each prompt. For questions it also makes `scores.json`,
the sums over the tokens of each reference solution; not of a teacher of another tokenizer. `evaluate` judges the
answers. A stopped stage goes on to the same answers (``generation.generate.responses``).
"""

from dataclasses import dataclass
from typing import Any

from datasets import load_from_disk
from torch import Tensor
from transformers import PreTrainedModel

from potstill.console import progress, say
from potstill.data.collators import Collator, pad_token_id
from potstill.data.conversations.prompt import plain_messages
from potstill.data.positions import supervised_labels
from potstill.device import device
from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.files.atomic import write_json
from potstill.files.jsonl_log import JsonlLog
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, Response, responses
from potstill.generation.server_writer import ServerModel, WritingModel
from potstill.generation.vllm_writer import check_installed
from potstill.losses.policy_gradient import label_log_probs
from potstill.metrics.held_out_text import score_answers, score_answers_of
from potstill.pipeline import artifacts
from potstill.pipeline.steps import HELD_OUT_SAMPLES, held_out_questions_step, held_out_samples_of
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import reads_other_tokens
from potstill.recipe.candidates import Candidate


@dataclass(frozen=True)
class Asked:
    """A prompt, and what is kept beside each answer to it."""

    request: Request
    known: dict[str, str]
    """Its `id`, its `question` and its `reference`."""


def check(recipe: Recipe) -> None:
    """Refuse an engine that is not installed.

    Raises:
        UserError: it is not.
    """
    check_installed(recipe.answers.engine, "answers.engine")


def run(work: Work) -> Made:
    """Let one model answer."""
    assert work.step.candidate is not None
    model = _model(work, work.step.candidate)
    outputs = [work.folder / "answers.jsonl"]
    if work.recipe.asks:
        others = reads_other_tokens(work.recipe, work.step.candidate)
        folder = HELD_OUT_SAMPLES
        if others:
            folder = held_out_samples_of(artifacts.teacher_of(work, work.step.candidate))
        samples = load_from_disk(work.run.path(held_out_questions_step(work.recipe)) / folder).to_list()
        answers = _answers(work, model, _asked_questions(work, samples))
        if not others:
            # Its loss would be of other tokens than the other models'.
            outputs.append(work.folder / "scores.json")
            write_json(outputs[-1], _scores(work, model, samples))
    else:
        answers = _answers(work, model, _asked_conversations(work))
    limited, tokens = sum(row["hit_limit"] for row in answers), sum(row["tokens"] for row in answers)
    made = f"{len(answers):,} answers of {tokens / len(answers):,.0f} tokens, {limited:,} cut at the limit"
    say(f"  {made}")
    return Made(outputs, {"answers": len(answers), "tokens": tokens, "hit_limit": limited, "made": made})


def _model(work: Work, candidate: Candidate) -> PreTrainedModel | ServerModel | WritingModel:
    if candidate.role == "teacher":
        return artifacts.writing_teacher(work, artifacts.teacher_of(work, candidate))
    return artifacts.own_model(work, candidate)


def _asked_questions(work: Work, samples: list[dict[str, Any]]) -> list[Asked]:
    questions = {row["id"]: row for row in artifacts.questions(work, "held_out")}
    known = {each: {name: row[name] for name in ("id", "question", "reference")} for each, row in questions.items()}
    return [Asked(Request(row["id"], row["input_ids"][: row["answer_start"]]), known[row["id"]]) for row in samples]


def _asked_conversations(work: Work) -> list[Asked]:
    assert work.step.candidate is not None
    asked = work.step.candidate
    teacher = artifacts.teacher_of(work, asked) if asked.role == "teacher" else None
    return [
        Asked(
            Request(
                one.id,
                one.input_ids if teacher is None else one.read_by(teacher),
                plain_messages(one.before, one.conversation.tools),
            ),
            {"id": one.id, "question": one.before[-1].content, "reference": one.reference},
        )
        for one in held_out_prompts(work)
    ]


def _answers(
    work: Work, model: PreTrainedModel | ServerModel | WritingModel, asked: list[Asked]
) -> list[dict[str, Any]]:
    """The model's answers, in the order in which it wrote them to the file."""
    settings, who = work.recipe.answers, str(work.step.candidate)
    known = {one.request.id: one.known for one in asked}
    journal = JsonlLog(work.folder / "answers.jsonl")
    done = [(row["id"], 0) for row in journal.rows]
    assert work.step.candidate is not None
    tokenizer = artifacts.tokenizer_of(work, work.step.candidate)
    writer, requests = NamedModel(model, tokenizer, who), [one.request for one in asked]
    found = responses(writer, requests, Decoding.of(settings), done, key="answers.max_new_tokens")
    units = "questions" if work.recipe.asks else "conversations"
    with progress(f"{who} answers", len(asked), units, len(done)) as advance:
        for batch in found:
            journal.append(_row(one, known[one.id]) for one in batch)
            advance(len(batch))
    return journal.rows


def _row(one: Response, known: dict[str, str]) -> dict[str, Any]:
    return known | {"response": one.response, "tokens": one.tokens, "hit_limit": one.hit_limit}


def _scores(work: Work, model: PreTrainedModel | ServerModel, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Nats and tokens of each reference solution after its prompt."""
    collate, size = Collator(pad_token_id(artifacts.tokenizer(work))), work.recipe.answers.batch_size
    # Samples of similar length come together, so that batches have little padding.
    ordered = sorted(samples, key=lambda row: -len(row["input_ids"]))

    def batch(at: int) -> dict[str, Tensor]:
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in ordered[at : at + size]]
        return {name: value.to(device()) for name, value in collate(rows).items()}

    batches = (batch(at) for at in range(0, len(ordered), size))
    if isinstance(model, ServerModel):
        assert work.step.candidate is not None
        beside = artifacts.teacher(work, artifacts.teacher_of(work, work.step.candidate)).beside()
        nll, tokens = score_answers_of(
            lambda each: -label_log_probs(beside.target(each), supervised_labels(each)), batches
        )
    else:
        nll, tokens = score_answers(model, batches)
    return {"id": [row["id"] for row in ordered], "nll": nll.tolist(), "tokens": tokens.tolist()}
