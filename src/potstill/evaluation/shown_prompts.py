"""Shown prompts: a few held-out prompts with the answers of teacher, student and control, for the report."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from potstill.data.conversations.conversation import Message
from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.evaluation.sample_texts import FILE, is_shown
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline import artifacts
from potstill.pipeline.steps import answers_steps
from potstill.pipeline.work import Work
from potstill.report.data import ShownAnswer, ShownPrompt

SHOWN = 8


def shown_prompts(work: Work, name_on_page: Callable[[str], str]) -> tuple[ShownPrompt, ...]:
    """The first prompts of the held-out data, with the answers of the first teacher, the students and the control.

    Of several seeds, the first one is shown. Of text, the prompts are the beginnings that `evaluate.samples` asked for.
    """
    if not work.recipe.has_answers:
        return _continued_texts(work, name_on_page)
    answered = {
        one: {row["id"]: row for row in read_jsonl(work.run.path(step) / "answers.jsonl")}
        for step in answers_steps(work.recipe)
        if (one := step.candidate) is not None and is_shown(work, one)
    }
    return tuple(
        replace(
            prompt,
            answers=(
                *prompt.answers,
                *(
                    ShownAnswer(name_on_page(one.label), rows[each]["response"], rows[each]["hit_limit"])
                    for one, rows in answered.items()
                ),
            ),
        )
        for each, prompt in islice(_prompts(work), SHOWN)
    )


def _continued_texts(work: Work, name_on_page: Callable[[str], str]) -> tuple[ShownPrompt, ...]:
    found = []
    for one in read_json(work.run.path("evaluate") / FILE) or ():
        answers = [ShownAnswer(None, one["reference"])]
        answers += [
            ShownAnswer(name_on_page(model), each["text"], each["cut"]) for model, each in one["answers"].items()
        ]
        found.append(
            ShownPrompt(f"held-out document {one['document']}", (("beginning", one["beginning"]),), tuple(answers))
        )
    return tuple(found)


def _prompts(work: Work) -> Iterator[tuple[str, ShownPrompt]]:
    """The id of each prompt, and the prompt with its reference alone."""
    if work.recipe.asks:
        for row in artifacts.questions(work, "held_out"):
            yield (
                row["id"],
                ShownPrompt(row["id"], (("user", row["question"]),), (ShownAnswer(None, row["reference"]),)),
            )
    else:
        for one in held_out_prompts(work):
            turns = tuple((message.role, _said(message)) for message in one.before)
            yield one.id, ShownPrompt(one.conversation.where, turns, (ShownAnswer(None, one.reference),))


def _said(message: Message) -> str:
    """The text of a message, with its calls of tools as JSON."""
    calls = (json.dumps({"name": call.name, "arguments": call.arguments}) for call in message.tool_calls)
    return "\n".join(text for text in (message.content, *calls) if text)
