"""Chat samples: the conversations of a data set become samples of tokens, rendered and masked as a recipe does it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from potstill.console import say
from potstill.data.compared_turns import LEARNED_TEXT, ComparedTurns
from potstill.data.conversations.across import OtherReaders, samples_across
from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import BadRowError
from potstill.data.conversations.read import LISTS, read_conversation
from potstill.data.conversations.render import ChatSample
from potstill.data.conversations.samples import samples_of
from potstill.data.conversations.tally import ChatTally
from potstill.data.row_teachers import TEACHERS, numbers_of_teachers
from potstill.data.sample_columns import MASKS, SAMPLE_WEIGHTS
from potstill.data.sources import SourceRow
from potstill.data.text_samples import PAIR
from potstill.errors import UserError
from potstill.recipe.conversations import ChatSettings, ConversationBase
from potstill.recipe.error_messages import complaint
from potstill.training.samples import first_samples

NOT_READ = (*SAMPLE_WEIGHTS, *MASKS, "labels", "chat_template", "chat_template_kwargs", "chosen", "rejected")
"""Columns beside a conversation that would change what is learned, if anything read them."""


def chat_settings(given: Mapping[str, Any] | None, longest: int) -> ChatSettings:
    """The settings of a trainer's `conversations`.

    Args:
        given: the keys of the recipe's `corpus` of conversations.
        longest: the default of `sequence_length`, in tokens.

    Raises:
        UserError: there is no such key, or its value is wrong.
    """
    settings = {"sequence_length": longest, **(given or {})}
    try:
        return ChatSettings.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"`conversations`: {complaint(error, settings)}") from None


def are_chats(dataset: Any, name: str) -> bool:
    """Whether the rows of a data set are conversations, by the first of them; never of a stream."""
    rows = first_samples(dataset, name)
    return bool(rows) and _is_chat(rows[0])


def _is_chat(row: Mapping[str, Any]) -> bool:
    if row.get("input_ids") is not None:
        return False
    listed = any(row.get(name) is not None for name in LISTS) or any(isinstance(row.get(name), list) for name in PAIR)
    return listed or all(row.get(name) is not None for name in ("instruction", "output"))


def chat_samples(
    dataset: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    settings: ChatSettings,
    name: str,
    others: OtherReaders | None = None,
) -> list[dict[str, Any]]:
    """The samples of a data set of conversations: `input_ids` and `labels`, of which the assistant's turns are learned.

    Args:
        dataset: rows with `messages` and `tools`, or in another format that a recipe reads.
        tokenizer: the tokenizer, with its chat template.
        settings: what is learned, how it is rendered, and what is too long.
        name: the argument that the data set was given as, for messages.
        others: teachers of other tokenizers. Samples then also have what these read (``conversations/across.py``).

    Raises:
        UserError: the tokenizer is missing or has no template, a row is no proper conversation, or has a column that
            is not read; or a tokenizer does not give back the learned text.
    """
    if tokenizer is None:
        raise UserError(f"`{name}` has conversations; give the tokenizer as `processing_class`")
    try:
        template = chat_template(tokenizer, settings)
        sides = None if others is None else others.sides(template, settings)
    except UserError as error:
        raise UserError(_in_python(error)) from error
    tally, found = ChatTally(), list[dict[str, Any]]()
    compared = [ComparedTurns() for _ in (others.teachers if others is not None else ())]
    for number, columns in enumerate(dataset, 1):
        _check_columns(columns, name)
        row = SourceRow(columns, f"{name}:{number}", name)
        try:
            chat = read_conversation(row, ConversationBase(), arrow=True)
            if others is None or sides is None:
                made = [_plain(one) for one in samples_of(chat, template, settings, tally)]
            else:
                student, every = sides
                names = others.names and [others.names[at] for at in numbers_of_teachers(columns, others.names)]
                own = others.of_row(every, names)
                made = samples_across(chat, student, own, settings, tally, compared)
        except BadRowError as error:
            if settings.on_bad_row == "refuse":
                raise UserError(_in_python(error)) from error
            tally.drop(name, error.reason)
            continue
        teachers = {TEACHERS: columns[TEACHERS]} if columns.get(TEACHERS) is not None else {}
        found += [{key: _arrays(ids) for key, ids in one.items()} | teachers for one in made]
    counts = tally.of(name)
    lost = "; ".join(f"{count:,} left out: {reason}" for reason, count in counts.dropped.most_common())
    if not found:
        raise UserError(f"`{name}` has {len(dataset):,} conversations and no sample of them is left ({lost})")
    share = f"{counts.supervised:,} of {counts.tokens:,} tokens are learned"
    say(f"  {name}: {len(found):,} samples of {len(dataset):,} conversations, {share}{'; ' if lost else ''}{lost}")
    if others is not None:
        _tell_compared(others, compared)
    return found


def _tell_compared(others: OtherReaders, compared: Sequence[ComparedTurns]) -> None:
    """Print how much of the learned turns is compared with each teacher of another tokenizer."""
    for teacher, counted in zip(others.teachers, compared, strict=True):
        counted.check_lost(others.ours.name, teacher.bytes.name, LEARNED_TEXT)
        say(f"  {counted.told(teacher=teacher.bytes.name)}")


def _plain(sample: ChatSample) -> dict[str, list[int]]:
    return {"input_ids": sample.input_ids, "labels": sample.labels}


def _in_python(error: UserError) -> str:
    """The message of an error, with the trainer's argument in place of keys of a recipe."""
    with_values = re.sub(r"`corpus\.(\w+): ([^`]*)`", r"`conversations={'\1': '\2'}`", str(error))
    return re.sub(r"`corpus\.(\w+)`", r"`conversations={'\1': …}`", with_values)


def _arrays(ids: list[int] | list[list[int]]) -> Any:
    nested = bool(ids) and isinstance(ids[0], list)
    return [np.asarray(each, np.int32) for each in ids] if nested else np.asarray(ids, np.int32)


def _check_columns(row: Mapping[str, Any], name: str) -> None:
    for column in NOT_READ:
        if row.get(column) is not None:
            raise UserError(
                f"`{name}` has conversations and a column `{column}`, which is not read; remove it, and say what is "
                "learned in `conversations` or by a `weight` of 0 in a message"
            )
