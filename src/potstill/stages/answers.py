"""answers: every model answers the same prompts of the held-out questions, and is scored on reference solutions.

Makes `answers/ROLE/[NAME/][seed-N/]answers.jsonl`, one line for each question, and `scores.json`, the sums over the
tokens of each reference solution. `evaluate` decides which answers are right. A stopped stage goes on to the same
answers (``generation.generate.responses``).
"""

from typing import Any

from datasets import load_from_disk
from torch import Tensor
from transformers import PreTrainedModel

from potstill.console import progress, say
from potstill.data.collators import Collator, pad_token_id
from potstill.device import device
from potstill.files.atomic import write_json
from potstill.files.jsonl_log import JsonlLog
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, Response, responses
from potstill.metrics.held_out_text import score_answers
from potstill.pipeline import artifacts
from potstill.pipeline.steps import held_out_questions_step
from potstill.pipeline.work import Made, Work


def run(work: Work) -> Made:
    """Let one model answer."""
    samples = load_from_disk(work.run.path(held_out_questions_step(work.recipe)) / "samples").to_list()
    assert work.step.candidate is not None
    model = artifacts.own_model(work, work.step.candidate)
    answers = _answers(work, model, samples)
    limited, tokens = sum(row["hit_limit"] for row in answers), sum(row["tokens"] for row in answers)
    scores = work.folder / "scores.json"
    write_json(scores, _scores(work, model, samples))
    made = f"{len(answers):,} answers of {tokens / len(answers):,.0f} tokens, {limited:,} cut at the limit"
    say(f"  {made}")
    file = work.folder / "answers.jsonl"
    return Made([file, scores], {"answers": len(answers), "tokens": tokens, "hit_limit": limited, "made": made})


def _answers(work: Work, model: PreTrainedModel, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The model's answers, in the order in which it wrote them to the file."""
    settings, who = work.recipe.answers, str(work.step.candidate)
    questions = {row["id"]: row for row in artifacts.questions(work, "held_out")}
    asked = [Request(row["id"], row["input_ids"][: row["answer_start"]]) for row in samples]
    journal = JsonlLog(work.folder / "answers.jsonl")
    done = [(row["id"], 0) for row in journal.rows]
    writer = NamedModel(model, artifacts.tokenizer(work), who)
    found = responses(writer, asked, Decoding.of(settings), done, key="answers.max_new_tokens")
    with progress(f"{who} answers", len(asked), "questions", len(done)) as advance:
        for batch in found:
            journal.append(_row(one, questions[one.id]) for one in batch)
            advance(len(batch))
    return journal.rows


def _row(one: Response, question: dict[str, Any]) -> dict[str, Any]:
    known = {name: question[name] for name in ("id", "question", "reference")}
    return known | {"response": one.response, "tokens": one.tokens, "hit_limit": one.hit_limit}


def _scores(work: Work, model: PreTrainedModel, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Nats and tokens of each reference solution after its prompt."""
    collate, size = Collator(pad_token_id(artifacts.tokenizer(work))), work.recipe.answers.batch_size
    # Samples of similar length come together, so that batches have little padding.
    ordered = sorted(samples, key=lambda row: -len(row["input_ids"]))

    def batch(at: int) -> dict[str, Tensor]:
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in ordered[at : at + size]]
        return {name: value.to(device()) for name, value in collate(rows).items()}

    nll, tokens = score_answers(model, (batch(at) for at in range(0, len(ordered), size)))
    return {"id": [row["id"] for row in ordered], "nll": nll.tolist(), "tokens": tokens.tolist()}
