"""student: build the student as it is before training, and measure it.

Makes `start/`, a plain Hugging Face folder, and, for width pruning, `kept.json`: the numbers of the teacher's heads,
neurons and channels that the student keeps. The held-out text is never measured here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from potstill.console import say
from potstill.data.collators import SharedVocabularyCollator
from potstill.data.prompts.render import end_token_id
from potstill.device import device
from potstill.errors import UserError
from potstill.files.atomic import write_json
from potstill.models.blueprint import check_blueprint
from potstill.models.folder import save_model
from potstill.models.pretrained import ModelSource
from potstill.models.saving import stop_at
from potstill.models.size import Size, check_length, shown, size_of
from potstill.on_policy.rollouts import check_can_write
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.student import PrunedLayers, PrunedWidth, Scratch
from potstill.students import load_and_save
from potstill.students.adapters import check_can_merge, with_adapter
from potstill.students.build import build
from potstill.students.importance import Batches, mean_loss
from potstill.students.prune_layers import chosen_layers
from potstill.teachers.prepared import PreparedTeacher
from potstill.training.arguments import training_arguments
from potstill.training.memory import check_parameters

LOSS_TOKENS = 4096
"""The loss is measured on samples with this many tokens: enough to see damage, and only seconds on a CPU."""
TOKENS_AT_ONCE = 2048
SAMPLE_SEED = 0
"""The seed that draws samples. It is the same for every start."""


@dataclass(frozen=True)
class _StartSamples:
    """The samples that measure importance for pruning, and those that measure the start's loss."""

    importance: Batches
    loss: Batches
    part: str
    """The name of the corpus part of `loss`, for messages."""


def run(work: Work) -> Made:
    """Write the student's start as a plain Hugging Face folder, tokenizer included."""
    recipe = work.recipe
    prepared = _prunable_teachers(work)
    tokenizer, vocabulary = artifacts.tokenizer(work), artifacts.compared_vocabulary(work)
    samples = _draw_samples(work, vocabulary)
    teachers = {teacher.name: teacher for teacher in prepared}
    if isinstance(recipe.student, PrunedLayers | PrunedWidth):
        check_pruned(recipe.student, teachers[recipe.student.teacher].config())
    model, summary = build(recipe.student, teachers, tokenizer, artifacts.vocabulary_size(work), samples.importance)
    check_length(model.config, recipe.corpus.sequence_length, "the student", "corpus.sequence_length")
    for settings in filter(None, map(recipe.on_policy_of, recipe.variants)):
        # A student that cannot write is refused now, before teachers run for hours.
        check_can_write(model.config, tokenizer, settings)
    if recipe.start_in_bfloat16:
        model = model.to(torch.bfloat16)
    if recipe.chats:
        stop_at(model, end_token_id(tokenizer))
    folder = work.folder / "start"
    save_model(model, tokenizer, folder)
    kept = summary.pop("kept", None)
    outputs = [folder]
    if kept is not None:
        summary["importance_kept"] = kept.pop("shares")
        outputs.append(work.folder / "kept.json")
        write_json(outputs[-1], kept)
    summary["parameters"] = sum(weight.numel() for weight in model.parameters())
    summary["layers"] = model.config.num_hidden_layers
    summary |= _measure_start(
        model.to(device()).eval(), summary, prepared, samples, vocabulary, one_tokenizer=crossing_loss(recipe) is None
    )
    _say_what_was_kept(summary)
    if recipe.student.adapter is not None:
        # The adapter is tried now, before teachers run for hours: it may name missing modules.
        adapted = with_adapter(model, recipe.student.adapter, seed=0)
        if recipe.student.merge:
            check_can_merge(adapted)
        summary["trained_parameters"], _ = adapted.get_nb_trainable_parameters()
        say(f"  {summary['trained_parameters']:,} parameters in an adapter on top")
    layers = f": {', '.join(map(str, summary['layers_kept']))}" if "layers_kept" in summary else ""
    summary["made"] = f"{summary['layers']} layers of {summary['from']}{layers}"
    return Made(outputs, summary)


def check(recipe: Recipe) -> None:
    """Refuse an adapter that peft refuses, a quantisation that this machine cannot run, a configuration that makes no
    model, and a pruning that prunes nothing."""
    student = recipe.student
    load_and_save.check(student)
    if isinstance(student, Scratch):
        count = check_blueprint(student.config, "student.config", None, recipe.corpus.sequence_length)
        training = training_arguments(recipe.distil.training, "distil.training", Path(), recipe.seeds[0])
        check_parameters(count, training, "student.config")
    elif isinstance(student, PrunedLayers | PrunedWidth) and (config := _known_config(recipe, student.teacher)):
        check_pruned(student, config)


def _known_config(recipe: Recipe, teacher: str) -> Any:
    """The configuration of a teacher, where the recipe or a folder has it; None where it is told later."""
    if teacher in recipe.pretrain:
        return AutoConfig.for_model(**recipe.pretrain[teacher].config)
    source = ModelSource(getattr(recipe.teachers[teacher], "model", ""), f"`teachers.{teacher}.model`")
    if source.folder is None or not (source.folder / "config.json").is_file():
        return None
    return source.config()


def check_pruned(student: PrunedLayers | PrunedWidth, config: Any) -> None:
    """Refuse layers that the teacher does not have, and a student that keeps all of its teacher.

    Raises:
        UserError: names the key.
    """
    whole = size_of(config, 0)
    total = whole["layers"]
    if total is None:
        return
    kept = {"layers": total if student.layers is None else len(chosen_layers(total, student.layers, student.rule))}
    if isinstance(student, PrunedWidth):
        widths = (student.heads, student.key_value_heads, student.intermediate_size, student.hidden_size)
        names = ("heads", "key_value_heads", "ffn", "hidden")
        kept |= {name: width for name, width in zip(names, widths, strict=True) if width is not None}
    if all(value == whole[name] for name, value in kept.items()):
        raise UserError(
            f"`student` keeps all of its teacher ({', '.join(f'{name} {value}' for name, value in kept.items())}), so "
            "nothing is pruned; give smaller numbers, or `start: copy`"
        )


def _prunable_teachers(work: Work) -> list[PreparedTeacher]:
    """The teachers that can be pruned. Pretrained ones count only if the student comes from one of them."""
    of = getattr(work.recipe.student, "teacher", None)
    return artifacts.teachers(work) if of in work.recipe.pretrain else artifacts.existing_teachers(work)


def _draw_samples(work: Work, vocabulary: int | None) -> _StartSamples:
    """Draw two disjoint random sets of samples, for importance and for the loss."""
    student, learned = work.recipe.student, training_data.for_start(work)
    wanted = student.measured_samples if isinstance(student, PrunedLayers | PrunedWidth) else 0
    there = len(learned.train)
    # At least one training sample must remain to measure the start.
    most = there if learned.validation is not None else there - 1
    if wanted > most:
        raise UserError(
            f"`student.importance_samples` is {wanted:,}, but the corpus gives only {most:,} training samples to "
            "measure importance on; give less, or more text"
        )
    order = random.Random(SAMPLE_SEED).sample(range(there), min(there, wanted + LOSS_TOKENS))
    rows, part = [learned.train[at] for at in order[:wanted]], "training"
    others, at = learned.train, order[wanted:]
    if learned.validation is not None:
        others, part = learned.validation, "validation"
        at = random.Random(SAMPLE_SEED).sample(range(len(others)), min(len(others), LOSS_TOKENS))
    measured, tokens = [], 0
    for row in (others[place] for place in at):
        measured.append(row)
        tokens += len(row["input_ids"])
        if tokens >= LOSS_TOKENS:
            break
    collate = learned.collate if vocabulary is None else SharedVocabularyCollator(learned.collate, vocabulary)
    at_once = max(1, TOKENS_AT_ONCE // work.recipe.corpus.sequence_length)

    def batches(of: Sequence[Any]) -> list[dict[str, Tensor]]:
        return [collate(of[begin : begin + at_once]) for begin in range(0, len(of), at_once)]

    return _StartSamples(batches(rows), batches(measured), part)


def _measure_start(
    model: PreTrainedModel,
    summary: dict[str, Any],
    teachers: list[PreparedTeacher],
    samples: _StartSamples,
    vocabulary: int | None,
    one_tokenizer: bool,
) -> dict[str, Any]:
    """The sizes and losses of the start and of its teachers. They are printed and returned for the summary.

    Without `one_tokenizer`, teachers have other tokens than the samples, and no loss on them.
    """
    sizes: dict[str, Size] = {"the student": size_of(model.config, summary["parameters"])}
    losses: dict[str, float] = {}
    losses["the student"], tokens = mean_loss(model, samples.loss, vocabulary)
    for teacher in teachers:
        sizes[teacher.name] = size_of(teacher.config(), teacher.parameters())
        if one_tokenizer and not teacher.is_elsewhere:
            losses[teacher.name], _ = mean_loss(teacher.model(), samples.loss, vocabulary)
    say(shown(sizes, losses))
    count = sum(len(batch["labels"]) for batch in samples.loss)
    said = f"{tokens:,} tokens in {count:,} of the {samples.part} samples"
    say(f"  loss: nats per token before any training, on {said}")
    (loss, *_), others = losses.values(), {name: losses[name] for name in list(losses)[1:]}
    before = {"on": samples.part, "samples": count, "tokens": tokens, "loss": loss, "teachers": others}
    return {"sizes": sizes, "before": before}


def _say_what_was_kept(summary: dict[str, Any]) -> None:
    if "vocabulary" in summary:
        made = {"carried": "carried over", "composed": "composed of several", "unknown": "as the mean of all"}
        counts = (f"{summary['vocabulary'][how]:,} {words}" for how, words in made.items())
        say(f"  tokens: {', '.join(counts)}")
    if "importance" in summary:
        by = {"loss": "rise in loss without it", "hidden": "1 - cosine of its input and output"}
        say(f"  importance of each layer ({by[summary['importance']['by']]}):")
        say("  " + ", ".join(f"{n}: {figure:.4f}" for n, figure in enumerate(summary["importance"]["layers"])))
    if "layers_kept" in summary:
        say(f"  layers kept: {', '.join(map(str, summary['layers_kept']))}")
    for key, share in summary.get("importance_kept", {}).items():
        if share < 1:
            say(f"  {key}: {share:.1%} of the teacher's by importance are kept")
