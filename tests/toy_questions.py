"""A toy of questions: sums in words, a random teacher that knows nothing of them, and three experiments."""

import json
import random
from pathlib import Path
from typing import Any

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe
from tiny import llama, save_model

RECIPE = """\
about: sums in words, asked of a teacher that cannot count
teachers: {{t: {{model: {folder}/teacher}}}}
corpus:
  questions: [{{path: {folder}/questions.jsonl}}]
  held_out: 0.2
  validation: 6
  sequence_length: 160
  teacher_length: 256
student: {{start: prune_layers, from: t, layers: 2}}
capture: {{k: 300, bits: 32}}
distil:
  losses: [{{kind: forward_kl, weight: 0.5}}, {{kind: cross_entropy, weight: 0.5}}]
  keep: best
  training: {{max_steps: 4, per_device_train_batch_size: 4, save_steps: 2, logging_steps: 1, learning_rate: 1e-2}}
experiments:
  base: {{}}
  ground-truth: {{}}
  placebo: {{targets: another_question}}
answers: {{max_new_tokens: 12, batch_size: 5}}
evaluate: {{resamples: 200}}
seeds: [0, 1]
precision: fp32
"""


def rows(count: int = 60) -> list[dict[str, Any]]:
    """Questions with worked answers in the form of GSM8K."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        one, other = draw.randint(1, 9), draw.randint(1, 9)
        question = f"{number}. a boat carries {one} coins and {other} more. how many?"
        made.append({"question": question, "answer": f"it has {one} + {other} = {one + other}.\n#### {one + other}"})
    return made


def save(folder: Path, given: list[dict[str, Any]] | None = None) -> Path:
    """Questions as .jsonl."""
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (rows() if given is None else given)), encoding="utf-8")
    return file


def recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe, with its questions and its teacher in `folder`."""
    if not (folder / "questions.jsonl").exists():
        save(folder)
    if not (folder / "teacher").exists():
        save_model(llama(0, max_position_embeddings=256), folder / "teacher")
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.format(folder=folder), encoding="utf-8")
    return load_recipe(str(file), overrides)


def evaluated(folder: Path) -> None:
    """A run of the recipe until `evaluate`, in `folder/run`."""
    run_recipe(recipe(folder), Run(folder / "run"), until="evaluate")
