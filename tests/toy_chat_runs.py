"""A toy of conversations: talk about coins in up to five turns, and a random teacher that knows nothing of it."""

from pathlib import Path
from typing import Any

import toy_conversations
from potstill.recipe import Recipe
from tiny import llama, padded
from toy_chat import TOOLS, assistant, call, chat_tokenizer, user

OF_COINS = (
    *("about=talk about coins", "corpus.held_out=0.4", "corpus.validation=null", "corpus.sequence_length=448"),
    *("corpus.template=chatml", "distil.training.max_steps=2", "distil.training.save_steps=500"),
    *("answers={max_new_tokens: 8, batch_size: 8, sentences: null}", "evaluate.resamples=200"),
)
"""What differs from the recipe of `toy_conversations`."""


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
    """The recipe of `toy_conversations`, with these conversations and a teacher of its own in `folder`."""
    if not (folder / "teacher").exists():
        toy_conversations.save_talks(folder, rows())
        padded(llama(0, max_position_embeddings=512), len(chat_tokenizer())).save_pretrained(folder / "teacher")
        chat_tokenizer().save_pretrained(folder / "teacher")
    return toy_conversations.recipe(folder, *OF_COINS, *overrides)
