"""Toy conversations of a student and of teachers with other tokenizers and chat templates."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import toy_chat
from potstill import Loss, TargetStore
from potstill.data.conversations.across import OtherReaders, OtherTeacher
from potstill.data.token_bytes import TokenBytes
from potstill.training.chat_samples import chat_samples
from tiny import TEXT, llama
from tokenizer_zoo import trained as byte_level
from toy_chat import assistant, user
from toy_training import captured_turns

ALM = (Loss("alm", 0.7), Loss("cross_entropy", 0.3))
POSITIONS = 512
NAMES = (["maths"], ["maths", "chat"], ["chat"], [])
"""The teachers of a row, in turn."""


@cache
def student_tokenizer() -> Any:
    made = deepcopy(toy_chat.chat_tokenizer())
    made.chat_template = toy_chat.template("chatml").text
    return made


@cache
def teacher_tokenizer() -> Any:
    made = deepcopy(byte_level())
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    made.chat_template = toy_chat.template("gemma").text
    return made


def student(seed: int = 1) -> Any:
    return llama(seed=seed, layers=2, vocab_size=len(student_tokenizer()), max_position_embeddings=POSITIONS)


def teacher() -> Any:
    return llama(seed=3, vocab_size=len(teacher_tokenizer()), max_position_embeddings=POSITIONS)


def talks(count: int = 8) -> list[dict[str, Any]]:
    """Conversations of one or two turns, of very different lengths."""
    found, every = [], TEXT.split()[:15]
    for n in range(count):
        words = every[n % 5 :]
        turns = [user(f"What {words[0]}?"), assistant(" ".join(words[: 3 + n]) + ".")]
        found.append({"messages": [*turns, user("And now?"), assistant(f"It {words[1]}.")] if n % 3 else turns})
    return found


def one_teacher(count: int = 8) -> dict[str, Any]:
    """The arguments of a training: one teacher for all conversations."""
    tokenizers = {"processing_class": student_tokenizer(), "teacher_tokenizer": teacher_tokenizer()}
    return {"teacher": teacher(), **tokenizers, "losses": ALM, "train_dataset": talks(count)}


def by_row(count: int = 8) -> dict[str, Any]:
    """The same with two teachers, each with its rows, one of which has the student's own tokenizer."""
    other = llama(seed=4, vocab_size=len(student_tokenizer()), max_position_embeddings=POSITIONS)
    rows = [{**row, "teachers": NAMES[number % len(NAMES)]} for number, row in enumerate(talks(count))]
    theirs = [teacher_tokenizer(), student_tokenizer()]
    return {
        **one_teacher(count),
        "teacher": {"maths": teacher(), "chat": other},
        "teacher_tokenizer": theirs,
        "train_dataset": rows,
    }


def samples(given: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The samples of a training with teachers by row, as all of them read them."""
    ours, theirs = given["processing_class"], given["teacher_tokenizer"]
    teachers = [OtherTeacher(TokenBytes(one, "a teacher"), None) for one in theirs]
    readers = OtherReaders(TokenBytes(ours, "the student"), teachers, [*given["teacher"]])
    return chat_samples(given["train_dataset"], ours, toy_chat.settings(), "train_dataset", readers)


def captured(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """A training with teachers by row, whose teachers were captured."""
    rows, stores = samples(given), dict[str, TargetStore]()
    ends = ("<end_of_turn>", "<|im_end|>")
    for number, (name, model) in enumerate(given["teacher"].items()):
        tokens = given["teacher_tokenizer"][number]
        end = tokens.convert_tokens_to_ids(ends[number])
        stores[name] = captured_turns(folder / name, model, tokens, end, rows, number)
    return {**given, "teacher": stores}
