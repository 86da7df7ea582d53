"""Prompts: one answer behind two prompts, the teacher's and the student's, token for token the same answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError, UndefinedError

from potstill.data.prompts.collator import Prompted
from potstill.errors import IGNORE_INDEX, UserError, first_line
from potstill.recipe.prompts import Prompt, Strategy, compiled, fields_of

Row = Mapping[str, Any]
"""What is known of one question: `question`, `reference` (the right solution), `answer` (what is learned), and more."""

PARAGRAPH = "\n\n"
"""What stands between the messages of plain text, and between the last of them and the answer."""


@dataclass(frozen=True)
class Prompter:
    """Makes samples of rows: of each row one for each strategy, and all of them with the same answer.

    An answer is tokenized once and apart from any prompt, and its end token follows it. So no token ever covers the end
    of a prompt and the beginning of the answer: the answer's tokens do not depend on what was asked, which is what
    aligns teacher and student, and they begin exactly where a model begins that is given the prompt to go on from. A
    tokenizer that puts a space before every text puts one before the answer too.

    An answer that is too long loses its end, the end token first: what was cut does not end there. It is cut at the
    least room that any of the strategies leaves to student or teacher, so that experiments that are compared learn the
    same tokens. Prompts are never cut.

    Args:
        strategies: by their names in the recipe.
        tokenizer: the student's and the teacher's, which is one, as is its chat template.
        longest: the most tokens of what the student reads.
        teacher_longest: the most tokens of what the teacher reads.
    """

    strategies: Mapping[str, Strategy]
    tokenizer: Any
    longest: int
    teacher_longest: int

    def __call__(self, row: Row, where: str) -> dict[str, Prompted]:
        """The samples of a row, by strategy.

        ``where`` says in an error's sentence which row it is, such as ``train.jsonl, line 7``.

        Raises:
            UserError: there is no answer, a prompt cannot be made, or it leaves no room for the answer.
        """
        answer = self._answer(row, where)
        prompts = {name: self._prompts(name, row, where) for name in self.strategies}
        room = min(
            self._room(prompt, side, name, where)
            for name, both in prompts.items()
            for side, prompt in zip(("student", "teacher"), both, strict=True)
        )
        kept = answer[:room]
        return {
            name: Prompted(
                id=str(row.get("id", where)),
                input_ids=student + kept,
                labels=[IGNORE_INDEX] * len(student) + kept,
                answer_start=len(student),
                teacher_input_ids=teacher + kept,
                teacher_answer_start=len(teacher),
                answer_cut=len(answer) - len(kept),
            )
            for name, (student, teacher) in prompts.items()
        }

    def _prompts(self, name: str, row: Row, where: str) -> tuple[list[int], list[int]]:
        strategy, key = self.strategies[name], f"prompts.{name}"
        student = prompt_ids(self.tokenizer, strategy.student, row, where, f"{key}.student")
        return student, prompt_ids(self.tokenizer, strategy.teacher, row, where, f"{key}.teacher")

    def _room(self, prompt: list[int], side: str, name: str, where: str) -> int:
        longest = self.longest if side == "student" else self.teacher_longest
        if len(prompt) >= longest:
            raise UserError(
                f"{where}: `prompts.{name}.{side}` makes a prompt of {len(prompt):,} tokens, which leaves nothing of "
                f"the {side}'s {longest:,} to the answer; shorten the template, allow more tokens, or leave the row out"
            )
        return longest - len(prompt)

    def _answer(self, row: Row, where: str) -> list[int]:
        text = row.get("answer")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: has no text in `answer`, so there is nothing to learn; leave the row out")
        return [*_tokens(self.tokenizer, text), self._end]

    @cached_property
    def _end(self) -> int:
        return end_token_id(self.tokenizer)


def prompt_ids(tokenizer: Any, prompt: Prompt, row: Row, where: str, key: str) -> list[int]:
    """The tokens that a model is given to go on from: to judge an answer, and to write one.

    With a chat template they end where the assistant's turn begins. Without one, they are the tokenizer's
    beginning-of-text token, or else its end-of-text one, and the messages as paragraphs, a blank line after each.

    Args:
        tokenizer: the model's.
        prompt: the recipe's.
        row: its fields; one that is None is not there.
        where: the row, for an error's sentence.
        key: the prompt's key in the recipe, for the same.

    Raises:
        UserError: a template uses a field that there is not, or fails; or the chat template refuses a message, or
            leaves it out.
    """
    messages = _conversation(prompt, row, f"{where}: `{key}")
    if tokenizer.chat_template is not None:
        return _tokens(tokenizer, _chat(tokenizer, messages, f"{where}: `{key}`", add_generation_prompt=True))
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    text = "".join(message["content"] + PARAGRAPH for message in messages)
    return [*([] if start is None else [start]), *_tokens(tokenizer, text)]


def end_token_id(tokenizer: Any) -> int:
    """The token that ends an answer: the one that the chat template ends a turn with, or else the end-of-text token.

    Raises:
        UserError: there is neither.
    """
    if tokenizer.chat_template is not None:
        mark = "ANSWER"
        turns = [_message("user", "QUESTION"), _message("assistant", mark)]
        _, _, after = _chat(tokenizer, turns, "the end of an answer").partition(mark)
        added = tokenizer.added_tokens_decoder
        for token in _tokens(tokenizer, after):
            if token in added and added[token].special:
                return token
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-text token, so a student would never learn to stop; give it one")
    return tokenizer.eos_token_id


def template_fingerprint(tokenizer: Any, prompt: Prompt) -> str:
    """The SHA-256 of everything that decides how a row becomes the model's prompt, its tokens aside."""
    content = [prompt.model_dump(mode="json"), tokenizer.chat_template or PARAGRAPH]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _conversation(prompt: Prompt, row: Row, key: str) -> list[dict[str, str]]:
    messages = []
    if prompt.system is not None:
        messages.append(_message("system", _rendered(prompt.system, row, f"{key}.system`")))
    for index, example in enumerate(prompt.examples):
        messages.append(_message("user", _rendered(prompt.question, example, f"{key}.examples.{index}`")))
        messages.append(_message("assistant", example["answer"]))
    return [*messages, _message("user", _rendered(prompt.question, row, f"{key}.user`"))]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(template: str, row: Row, where: str) -> str:
    fields = {name: value for name, value in row.items() if value is not None}
    try:
        text = compiled(template).render(fields)
    except UndefinedError as error:
        unknown = sorted(fields_of(template) - set(fields))
        wrong = f"uses the field `{unknown[0]}`" if unknown else f"cannot be filled in ({first_line(error)})"
        raise UserError(f"{where} {wrong}, and the fields there are {', '.join(fields) or 'none'}") from None
    except Exception as error:  # what a template computes may fail in any way
        raise UserError(f"{where} cannot be filled in ({first_line(error)}); mend the template") from error
    if not text.strip():
        raise UserError(f"{where} comes out blank; mend the template, or leave the row out")
    return text


def _chat(tokenizer: Any, messages: list[dict[str, str]], where: str, **options: Any) -> str:
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except TemplateError as error:
        raise UserError(f"{where}: the tokenizer's chat template refuses it ({first_line(error)})") from error
    for message in messages:
        # Of answers, some templates show a part only; but two strategies whose system message is lost are one.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            raise UserError(
                f"{where}: the tokenizer's chat template leaves the {message['role']} message out, or changes it; say "
                "it in another message"
            )
    return text


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
