"""The smallest recipe, with the files that it names: a line of text, and a folder that could be a teacher."""

from pathlib import Path

from potstill.recipe import Recipe, load_recipe

TEXT = """\
about: a test
teachers:
  t: {model: teacher}
corpus:
  sources: [{path: text.txt}]
  sequence_length: 8
student: {start: prune_layers, from: t, layers: 2}
capture: {}
distil:
  losses: [{kind: forward_kl}]
  training: {max_steps: 1}
precision: fp32
"""

QUESTIONS = """\
about: a test
teachers:
  t: {model: teacher}
corpus:
  questions: [{path: questions.jsonl}]
  sequence_length: 64
generate: {by: t}
student: {start: prune_layers, from: t, layers: 2}
capture: {}
distil:
  losses: [{kind: forward_kl}]
  training: {max_steps: 1}
experiments:
  base: {}
  confidence: {}
  shuffled: {strategy: base, targets: another_question}
precision: fp32
"""


def write(folder: Path, text: str | bytes = TEXT) -> Path:
    """A recipe file."""
    file = folder / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def inputs(folder: Path) -> None:
    """The files that the recipe names; it must be loaded with `folder` as the current directory."""
    (folder / "text.txt").write_text("Once upon a time.")
    (folder / "teacher").mkdir()
    (folder / "teacher" / "model.safetensors").write_text("weights")


def recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe itself."""
    return load_recipe(str(write(folder)), overrides)


def questions(folder: Path, *overrides: str) -> Recipe:
    """The smallest recipe with questions, three experiments and all."""
    return load_recipe(str(write(folder, QUESTIONS)), overrides)
