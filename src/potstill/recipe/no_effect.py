"""No effect: settings of a recipe that other settings make meaningless, and a control that is trained for less or more
than its student."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from potstill.recipe.across_tokenizers import complaints_across_tokenizers
from potstill.recipe.answers import Answers
from potstill.recipe.conversations import Conversations
from potstill.recipe.distributed import unshardable
from potstill.recipe.on_policy import without_rollouts
from potstill.recipe.precision import contradictions
from potstill.recipe.row_rules import complaints_of_rows
from potstill.recipe.served import not_served
from potstill.recipe.training_fields import TrainingFields

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe

SAME_FOR_CONTROL = (
    "max_steps",
    "num_train_epochs",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "accelerator_config",
)
"""Fields that decide which samples a training reads, besides the samples of a step."""

BATCH, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
BATCH_DEFAULT = 8
"""transformers' own."""


def complaints(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each setting that has no effect, contradicts another, or spoils the comparison with the
    control."""
    yield from _without_questions(recipe)
    yield from _of_answers(recipe)
    yield from _of_generate(recipe)
    yield from contradictions(recipe)
    yield from unshardable(recipe)
    yield from not_served(recipe)
    yield from _of_control(recipe)
    yield from without_rollouts(recipe)
    yield from complaints_of_rows(recipe)
    yield from complaints_across_tokenizers(recipe)
    if len(recipe.all_teachers) == 1:
        section = "teachers" if recipe.teachers else "pretrain"
        name, teacher = next(iter(recipe.all_teachers.items()))
        if teacher.weight != 1:
            yield f"`{section}.{name}.weight` has no effect, because there is only one teacher; remove it"
    for key, training, keep in _measured(recipe):
        if keep != "best" and "per_device_eval_batch_size" in training:
            yield f"`{key}.training.per_device_eval_batch_size` has no effect without `keep: best`; remove it"
    tokens = getattr(recipe.tokenizer, "vocab_size", None)
    if recipe.capture is not None and tokens is not None and recipe.capture.k > tokens and recipe.capture.keeps("k"):
        yield f"`capture.k` is {recipe.capture.k:,}, but `tokenizer.vocab_size` is {tokens:,}; lower it"
    select, snapshots = recipe.select, recipe.distil.snapshots
    if select is not None and select.average is not None and snapshots is not None and snapshots.count is not None:
        rule, several = ("last", select.average.last) if select.average.last else ("best", select.average.best)
        if several is not None and several > snapshots.count:
            yield (
                f"`select.average.{rule}` is {several}, but `distil.snapshots` keeps only {snapshots.count}; lower it"
            )


def _without_questions(recipe: "Recipe") -> Iterator[str]:
    """Sections and keys that need questions, where the corpus has none."""
    if recipe.asks:
        return
    given = ["strategies"] if recipe.strategies else []
    if not recipe.chats:
        given += ["generate"] if recipe.generate is not None else []
        given += ["answers"] if recipe.answers != Answers() else []
    elif recipe.answers.strategy != Answers().strategy:
        given.append("answers.strategy")
    for name, experiment in recipe.experiments.items():
        given += [f"experiments.{name}.strategy"] if experiment.strategy is not None else []
        given += [f"experiments.{name}.targets"] if experiment.targets != "own" else []
    for key in given:
        advice = "give `corpus.questions`"
        if recipe.chats and "strateg" in key and not key.startswith("answers"):
            advice = "say in `corpus.teacher` what the teachers read of conversations"
        yield f"`{key}` needs questions, and `corpus` has none; {advice}, or remove `{key}`"


def _of_generate(recipe: "Recipe") -> Iterator[str]:
    """Keys of `generate` that the corpus gives no meaning."""
    given = recipe.generate
    if given is None:
        return
    if recipe.asks and given.turns is not None:
        yield "`generate.turns` has no effect on questions, which have one answer; remove it"
    if recipe.chats and given.strategy != "base":
        yield (
            "`generate.strategy` needs questions, and `corpus` has conversations; say in `corpus.teacher` what the "
            "teacher reads, and remove it"
        )
    teacher = recipe.corpus.teacher if isinstance(recipe.corpus, Conversations) else None
    if teacher is not None and teacher.shows_answers:
        yield (
            "`corpus.teacher.user` shows the `reference`, but with `generate` the references are the teacher's own "
            "answers; remove `reference`, or `generate`"
        )
    if recipe.chats and given.keep == "correct":
        yield (
            "`generate.keep: correct` needs questions whose references have a number, and `corpus` has conversations; "
            "keep `all` or `nearest`"
        )


def _of_answers(recipe: "Recipe") -> Iterator[str]:
    if recipe.judges_numbers and recipe.answers.sentences != Answers().sentences:
        yield "`answers.sentences` has no effect on answers that are judged by a number; give `answers.number: false`"
    if recipe.asks and not recipe.answers.number and recipe.generate is not None and recipe.generate.keep == "correct":
        yield (
            "`generate.keep: correct` needs references that end in `#### N`, and `answers.number: false` says that "
            "they need not; keep `all`, or remove `number`"
        )


def _of_control(recipe: "Recipe") -> Iterator[str]:
    if recipe.control is None:
        return
    student, control = recipe.distil.training, {**recipe.distil.training, **recipe.control.training}
    different = [name for name in SAME_FOR_CONTROL if control.get(name) != student.get(name)]
    if samples_of_step(control) != samples_of_step(student):
        different += [name for name in (BATCH, ACCUMULATION) if name in recipe.control.training]
    for name in different:
        yield (
            f"`control.training.{name}` is not that of `distil.training`, and a control that reads other samples than "
            "its student shows nothing; remove it"
        )


def samples_of_step(training: dict[str, object] | TrainingFields) -> int:
    """The samples of one optimizer step of one process."""
    batch, times = training.get(BATCH, BATCH_DEFAULT), training.get(ACCUMULATION, 1)
    assert isinstance(batch, int)
    assert isinstance(times, int)
    return batch * times


def _measured(recipe: "Recipe") -> Iterator[tuple[str, TrainingFields, str]]:
    """Each section that has a `training`, and which weights its training keeps."""
    yield "distil", recipe.distil.training, "best" if recipe.search is not None else recipe.distil.keep
    if recipe.control is not None:
        yield "control", recipe.control.training, recipe.distil.keep
    for name, teacher in recipe.pretrain.items():
        yield f"pretrain.{name}", teacher.training, teacher.keep
