"""Toy questions, the strategies that ask them, and the samples that they become."""

import copy

import pytest
import torch

from potstill.data.positions import supervised_positions
from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.recipe.strategies import SHIPPED, Prompt, Strategy
from tiny import documents, tokenizer

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
END = 0
FEW_SHOT = Strategy(
    teacher=Prompt(
        system="You know {{ topic }}.",
        user="Q: {{ question }}\nA:",
        examples=[{"question": "What sails?", "answer": "boats"}, {"question": "In winter?", "answer": "nobody"}],
    ),
    student=Prompt(user="Q: {{ question }}\nA:"),
)
STRATEGIES = {**SHIPPED, "few-shot": FEW_SHOT}
ROOMY = 10_000


def chatty(template=CHAT):
    made = copy.deepcopy(tokenizer())
    made.chat_template = template
    return made


TOKENIZERS = pytest.mark.parametrize("tokens", [tokenizer(), chatty()], ids=["plain", "chat"])
SIDES = pytest.mark.parametrize("side", ["left", "right"])


def rows(count=6):
    """Questions, references and answers of very different lengths."""
    made = []
    for index, text in enumerate(documents(count)):
        words = text.split()
        question, answer = " ".join(words[: 3 + index]), " ".join(words[2 : 12 - index])
        made.append({"question": question, "reference": text[:40], "answer": answer, "topic": "the river"})
    return made


def prompted(tokens, strategy="ground-truth", count=6, longest=ROOMY, teacher_longest=ROOMY):
    prompter = AlignedSampleBuilder({strategy: STRATEGIES[strategy]}, tokens, longest, teacher_longest)
    return [prompter(row, f"row {index}")[strategy] for index, row in enumerate(rows(count))]


def taught(batch):
    """The ids of a batch's supervised tokens, as the losses take them, read back from what the model reads."""
    positions = supervised_positions(batch)
    labels = batch["labels"].flatten()[positions + 1]
    assert torch.equal(batch["input_ids"].flatten()[positions + 1], labels)
    return labels.tolist()
