"""A toy of conversations: talks about the weather, and a random teacher that knows nothing of it."""

import json
import random
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import toy_chat
from potstill.recipe import Recipe, load_recipe
from tiny import TEXT, llama
from toy_chat import TOOLS, assistant, call, chat_tokenizer, result, user

RECIPE = """\
about: talks about the weather, with a teacher that knows nothing of it
teachers: {{t: {{model: {folder}/teacher}}}}
corpus:
  conversations: [{{path: {folder}/talks.jsonl}}]
  held_out: 0.2
  validation: 6
  sequence_length: 200
  template: qwen
student: {{start: prune_layers, from: t, layers: 2}}
distil:
  losses: [{{kind: forward_kl, weight: 0.5}}, {{kind: cross_entropy, weight: 0.5}}]
  training: {{max_steps: 4, per_device_train_batch_size: 4, save_steps: 2, logging_steps: 1, learning_rate: 1e-2}}
answers: {{max_new_tokens: 12, batch_size: 5, sentences: null}}
evaluate: {{resamples: 100, speed: false}}
precision: fp32
"""


def talks(count: int = 40) -> list[dict[str, Any]]:
    """Conversations of one to three turns, some with a system prompt, some with a call of a tool."""
    draw = random.Random(0)

    def words() -> str:
        return " ".join(draw.choices(TEXT.split(), k=draw.randint(2, 6)))

    made = []
    for number in range(count):
        messages = [{"role": "system", "content": words()}] if number % 4 == 0 else []
        for turn in range(draw.randint(1, 3)):
            messages += [user(f"{number}.{turn} {words()}"), assistant(words())]
        if number % 5 == 0:
            messages += [user(f"{number} cold?"), assistant(tool_calls=[call()]), result(), assistant(words())]
        made.append({"messages": messages, "tools": TOOLS if number % 5 == 0 else None})
    return made


def save_talks(folder: Path, said: Sequence[dict[str, Any]] | None = None) -> Path:
    """The conversations, or those that are given, as .jsonl."""
    file = folder / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in said or talks()), encoding="utf-8")
    return file


def teacher(folder: Path, layers: int = 4) -> Path:
    """A random Llama of the tokenizer of toy chats, which often ends its turn."""
    model = llama(0, layers, vocab_size=len(chat_tokenizer()), max_position_embeddings=256)
    end = chat_tokenizer().convert_tokens_to_ids("<|im_end|>")
    model.get_output_embeddings().weight.data[end] *= 3
    model.save_pretrained(folder)
    told = deepcopy(chat_tokenizer())
    told.chat_template = toy_chat.template("chatml").text
    told.save_pretrained(folder)
    return folder


def recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe, with its talks and its teacher in `folder`."""
    if not (folder / "teacher").exists():
        save_talks(folder)
        teacher(folder / "teacher")
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return load_recipe(str(file), overrides)
