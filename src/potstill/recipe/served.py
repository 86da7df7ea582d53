"""Served teachers: what a recipe may not ask of a teacher behind a server."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from potstill.recipe.losses import HiddenMatch, temperatures
from potstill.recipe.student import FromTeacher
from potstill.recipe.teachers import PotstillTeacher, ScoringTeacher, ServerTeacher, WritingTeacher
from potstill.recipe.tokenizer import CutTokenizer

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe


def served_teachers(recipe: "Recipe") -> dict[str, ServerTeacher]:
    """The teachers of a recipe that are behind servers."""
    return {name: one for name, one in recipe.teachers.items() if isinstance(one, ServerTeacher)}


def only_writes(recipe: "Recipe", name: str) -> bool:
    """Whether a teacher tells the distributions of what it writes, and of no text that it is given."""
    return isinstance(recipe.teachers.get(name), WritingTeacher)


def not_served(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each setting that needs more of a served teacher than its server gives."""
    for name, teacher in served_teachers(recipe).items():
        what = f"`teachers.{name}` is behind a server"
        if isinstance(teacher, WritingTeacher):
            yield from _needing_scores(recipe, name, teacher)
        yield from _needing_weights(recipe, name, what)
        yield from _needing_layers(recipe, what)
        if isinstance(teacher, ScoringTeacher | WritingTeacher):
            yield from _needing_whole_distributions(recipe, what)
            yield from _of_capture(recipe, name, teacher)
            yield from _of_temperature(recipe, name, teacher)
            yield from _of_engine(recipe, name)
        if isinstance(teacher, PotstillTeacher):
            yield from _needing_a_writer(recipe, name)


def _needing_weights(recipe: "Recipe", name: str, what: str) -> Iterator[str]:
    if isinstance(recipe.student, FromTeacher) and recipe.student.teacher == name:
        yield (
            f"`student.from: {name}` makes the student from the teacher's weights, and {what}; name a checkpoint "
            "(`start: checkpoint`), or begin from scratch (`start: scratch`)"
        )
    if isinstance(recipe.tokenizer, CutTokenizer) and recipe.tokenizer.teacher == name:
        yield (
            f"`tokenizer.teacher: {name}` cuts the teacher's vocabulary, and {what}, which predicts all of its tokens; "
            "leave `tokenizer` out"
        )


def _needing_layers(recipe: "Recipe", what: str) -> Iterator[str]:
    for variant in recipe.variants:
        if any(isinstance(loss, HiddenMatch) for loss in recipe.losses_of(variant)):
            yield f"hidden_match needs the teacher's layers, and {what}, which shows none; remove it"


def _needing_a_writer(recipe: "Recipe", name: str) -> Iterator[str]:
    why = f"`teachers.{name}.api: potstill` gives hidden states and writes no text"
    if recipe.generate is not None and recipe.generate.by == name:
        yield f"`generate.by: {name}`: {why}; name another teacher"
    if recipe.has_answers and recipe.answers.teachers:
        yield f"`answers.teachers` lets teachers answer, and {why}; set it to false"


def _of_engine(recipe: "Recipe", name: str) -> Iterator[str]:
    generate = recipe.generate
    if generate is not None and generate.by == name and generate.engine != "auto":
        yield (
            f"`generate.engine: {generate.engine}` says what writes on this machine, and `teachers.{name}` is behind a "
            "server, which writes itself; remove it"
        )


def _needing_whole_distributions(recipe: "Recipe", what: str) -> Iterator[str]:
    if recipe.distil.mix == "logits" and len(recipe.all_teachers) > 1:
        yield (
            f"`distil.mix: logits` needs each teacher's whole distribution, and {what}, which gives a part of it; use "
            "`mix: probabilities`"
        )


def _of_capture(recipe: "Recipe", name: str, teacher: ScoringTeacher | WritingTeacher) -> Iterator[str]:
    capture = recipe.capture
    if capture is None:
        return
    if capture.keep == "spans":
        return
    if capture.keep != "top_k":
        kept = "hidden states" if capture.keep == "hidden" else "the whole distribution"
        yield (
            f"`capture.keep: {capture.keep}` needs {kept}, and `teachers.{name}` is behind a server, which gives the "
            "likeliest tokens; use `keep: top_k`"
        )
    elif capture.k > teacher.top_k:
        yield (
            f"`capture.k` is {capture.k:,}, but `teachers.{name}.top_k` is {teacher.top_k:,}; lower the one, or raise "
            "the other"
        )


def _of_temperature(recipe: "Recipe", name: str, teacher: ScoringTeacher | WritingTeacher) -> Iterator[str]:
    hot = [one for one in recipe.temperatures_of(None) if one != 1]
    if hot and teacher.fixed_temperature:
        yield (
            f"`teachers.{name}.api: {teacher.api}` gives log-probabilities at temperature 1 only, and the losses have "
            f"a temperature of {hot[0]:g}; set `temperature: 1`, or use `api: sglang`"
        )
    if recipe.capture is not None:
        each = [recipe.temperatures_of(one) for one in (recipe.sample_sets or [None])]
    else:
        each = [temperatures(recipe.losses_of(variant)) for variant in recipe.variants]
    if several := [one for one in each if len(one) > 1]:
        yield f"`teachers.{name}` is asked at one temperature, but the losses have {several[0]}; give them one"


def _needing_scores(recipe: "Recipe", name: str, teacher: WritingTeacher) -> Iterator[str]:
    """What cannot be had of a teacher that scores no given text."""
    what = f"`teachers.{name}.api: {teacher.api}` tells only the distributions of what it writes itself"
    if len(recipe.all_teachers) > 1:
        yield f"{what}, so its answers have no other teacher; leave the other teachers out"
    if recipe.generate is None or recipe.generate.by != name:
        yield f"{what}; let it write the training answers with `generate: {{by: {name}}}`"
    if recipe.capture is None:
        yield f"{what}, none of a training's batches; keep them with `capture: {{k: {teacher.top_k}}}`"
    if any(recipe.on_policy_of(variant) is not None for variant in recipe.variants):
        yield f"`on_policy` lets a teacher judge what the student writes, and {what}; remove it"
    if recipe.asks and recipe.answers.teachers:
        yield f"`answers.teachers` scores reference solutions, and {what}; set it to false"
    if recipe.select is not None:
        yield f"`select` measures the distance from the teacher, and {what}; remove it"
    if teacher.api == "openai" and recipe.generate is not None and recipe.generate.top_k is not None:
        yield f"`generate.top_k` is no setting of `teachers.{name}.api: openai`; remove it, or use `top_p`"
