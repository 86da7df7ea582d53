"""Render: turn a prompt of the recipe and a question into the tokens that a model reads."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, UndefinedError

from potstill.errors import UserError, first_line
from potstill.limits import limited
from potstill.recipe.strategies import MOST_MEMORY, MOST_SECONDS, Prompt, fields_of, rendered

QuestionRow = Mapping[str, Any]
"""The fields of one question: `question`, `reference` (the right solution), `answer` (the text to learn), and more."""

PARAGRAPH = "\n\n"
"""Separates the messages of a plain-text prompt, and the last message from the answer."""


def prompt_ids(tokenizer: Any, prompt: Prompt, row: QuestionRow, where: str, key: str) -> list[int]:
    """The tokens of a prompt, after which a model writes its answer or an answer is scored.

    With a chat template they end where the assistant's turn begins. Without one, they are the tokenizer's
    beginning-of-text token (or else its end-of-text token) and then the messages, each followed by a blank line.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the recipe's prompt.
        row: the fields of the question; a field that is None counts as missing.
        where: names the row in messages.
        key: the prompt's key in the recipe, for messages.

    Raises:
        UserError: a template uses a missing field or fails; or the chat template refuses a message or leaves it out.
    """
    messages = prompt_messages(prompt, row, where, key)
    if tokenizer.chat_template is not None:
        return token_ids(tokenizer, _chat(tokenizer, messages, f"{where}: `{key}`", add_generation_prompt=True))
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    text = "".join(message["content"] + PARAGRAPH for message in messages)
    return [*([] if start is None else [start]), *token_ids(tokenizer, text)]


def prompt_messages(prompt: Prompt, row: QuestionRow, where: str, key: str) -> list[dict[str, str]]:
    """The messages of a prompt, each with a `role` and a `content`. Arguments and errors: as :func:`prompt_ids`."""
    return _conversation(prompt, row, f"{where}: `{key}")


def end_token_id(tokenizer: Any) -> int:
    """The token that ends an answer: the token that ends a turn in the chat template, or else the end-of-text token.

    Raises:
        UserError: the tokenizer has neither.
    """
    if tokenizer.chat_template is not None:
        mark = "ANSWER"
        turns = [_message("user", "QUESTION"), _message("assistant", mark)]
        _, _, after = _chat(tokenizer, turns, "the end of an answer").partition(mark)
        added = tokenizer.added_tokens_decoder
        for token in token_ids(tokenizer, after):
            if token in added and added[token].special:
                return token
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-text token, so a student would never learn to stop; give it one")
    return tokenizer.eos_token_id


def ends_of(tokenizer: Any) -> list[int]:
    """The tokens that end a response."""
    return sorted({end_token_id(tokenizer), tokenizer.eos_token_id} - {None})


def template_fingerprint(tokenizer: Any, prompt: Prompt) -> str:
    """The SHA-256 of everything that turns a row into the text of a prompt: its templates and the chat template."""
    content = [prompt.model_dump(mode="json"), tokenizer.chat_template or PARAGRAPH]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _conversation(prompt: Prompt, row: QuestionRow, key: str) -> list[dict[str, str]]:
    messages = []
    if prompt.system is not None:
        messages.append(_message("system", filled_in(prompt.system, row, f"{key}.system`")))
    for index, example in enumerate(prompt.examples):
        messages.append(_message("user", filled_in(prompt.question, example, f"{key}.examples.{index}`")))
        messages.append(_message("assistant", example["answer"]))
    return [*messages, _message("user", filled_in(prompt.question, row, f"{key}.user`"))]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def filled_in(template: str, row: QuestionRow, where: str) -> str:
    """A template of the recipe with the fields of a row.

    Raises:
        UserError: it uses a missing field, fails, or comes out blank; begins with `where`.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    try:
        text = rendered(template, fields)
    except UndefinedError as error:
        unknown = sorted(fields_of(template) - set(fields))
        wrong = f"uses the field `{unknown[0]}`" if unknown else f"cannot be filled in ({first_line(error)})"
        raise UserError(f"{where} {wrong}, and the fields are {', '.join(fields) or 'none'}") from None
    except Exception as error:  # a template can raise any exception
        raise UserError(f"{where} cannot be filled in ({first_line(error)}); correct the template") from error
    if not text.strip():
        raise UserError(f"{where} comes out blank; correct the template, or leave the row out")
    return text


def _chat(tokenizer: Any, messages: list[dict[str, str]], where: str, **options: Any) -> str:
    try:
        with limited(MOST_SECONDS, MOST_MEMORY):
            text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except TemplateError as error:
        raise UserError(f"{where}: the tokenizer's chat template refuses it ({first_line(error)})") from error
    except Exception as error:  # a template can raise any exception
        raise UserError(
            f"{where}: the tokenizer's chat template fails ({first_line(error)}); correct it in the model's folder, or "
            "use another model"
        ) from error
    for message in messages:
        # A template may show only a part of an answer. But a lost system message could make two strategies the same.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            raise UserError(
                f"{where}: the tokenizer's chat template leaves the {message['role']} message out, or changes it; say "
                "it in another message"
            )
    return text


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without the special tokens that a tokenizer adds at its ends."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
