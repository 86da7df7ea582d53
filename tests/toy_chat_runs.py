"""A toy of conversations: talk about coins in up to five turns, and a random teacher that knows nothing of it."""

import json
from pathlib import Path
from typing import Any

from potstill.recipe import Recipe, load_recipe
from tiny import llama, padded
from toy_chat import TOOLS, assistant, call, chat_tokenizer, user

RECIPE = """\
about: talk about coins
teachers: {{t: {{model: {folder}/teacher}}}}
corpus:
  conversations: [{{path: {folder}/chats.jsonl}}]
  held_out: 0.4
  sequence_length: 448
  template: chatml
student: {{start: prune_layers, from: t, layers: 2}}
distil:
  losses: [{{kind: forward_kl, weight: 0.5}}, {{kind: cross_entropy, weight: 0.5}}]
  training: {{max_steps: 2, per_device_train_batch_size: 4, logging_steps: 1, learning_rate: 1e-2}}
answers: {{max_new_tokens: 8, batch_size: 8, sentences: null}}
evaluate: {{resamples: 200, speed: false}}
precision: fp32
"""


def rows(count: int = 30) -> list[dict[str, Any]]:
    """Conversations of one to five turns. Every fifth ends with a call of a tool."""
    made = []
    for number in range(count):
        talk = [{"role": "system", "content": "Be brief."}] if number % 3 == 0 else []
        for turn in range(number % 5):
            talk += [user(f"{number} and {turn}?"), assistant(f"It is {number + turn}.")]
        last = [user(f"Is it cold in {number}?"), assistant(tool_calls=[call(str(number))])]
        made.append({"messages": [*talk, *last], "tools": TOOLS} if number % 5 == 0 else {"messages": talk})
    return made


def recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe, with its conversations and its teacher in `folder`."""
    if not (folder / "chats.jsonl").exists():
        (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    if not (folder / "teacher").exists():
        padded(llama(0, max_position_embeddings=512), len(chat_tokenizer())).save_pretrained(folder / "teacher")
        chat_tokenizer().save_pretrained(folder / "teacher")
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return load_recipe(str(file), overrides)
