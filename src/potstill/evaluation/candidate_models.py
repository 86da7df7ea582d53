"""Candidates: the models under comparison, how each is loaded, and the result of a measurement."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from potstill.metrics.results import Paired, Result
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import Candidate, own_candidates
from potstill.recipe.served import only_writes, served_teachers


@dataclass(frozen=True)
class CandidateModel:
    """A candidate of one seed, and how its model is loaded."""

    candidate: Candidate
    load: Callable[[], PreTrainedModel]
    """Loads the model, for reading only, onto this machine's device."""
    tokenizer: Callable[[], Any] | None = None
    """Loads the model's own tokenizer. None: it uses the run's."""


Models = Mapping[Candidate, Sequence[CandidateModel]]
"""The models of each candidate, one for each seed that it was trained with; the keys have no seed."""


@dataclass(frozen=True)
class Measurement:
    """The result of one measurement."""

    rows: Sequence[Result] = ()
    """Every model's metrics."""
    pairs: Sequence[Paired] = ()
    """The students' differences from other models, on the same items."""
    outputs: Sequence[Path] = ()
    """Files and folders in the step's folder."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Figures for the manifest."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further entries of `comparison.json`."""


def own_models(work: Work) -> Models:
    """The models of all candidates that the run made or prepared, and that predict a given text."""
    found: dict[Candidate, list[CandidateModel]] = {}
    for one in own_candidates(work.recipe):
        if one.role == "teacher" and only_writes(work.recipe, artifacts.teacher_of(work, one)):
            continue
        tokenizer = partial(_teacher_tokenizer, work, one) if one.role == "teacher" else None
        model = CandidateModel(one, partial(artifacts.own_model, work, one), tokenizer)
        found.setdefault(one.of_all_seeds, []).append(model)
    return found


def loadable(work: Work, models: Models) -> Models:
    """The models without those behind servers, which a measurement that needs whole distributions leaves out."""
    served = served_teachers(work.recipe)
    first = next(iter(work.recipe.all_teachers))
    return {one: each for one, each in models.items() if one.role != "teacher" or (one.name or first) not in served}


def reading_alike(work: Work, models: Models) -> Models:
    """The models without a teacher of another tokenizer, which cannot read the tokens that the others read."""
    if crossing_loss(work.recipe) is None:
        return models
    return {one: each for one, each in models.items() if one.role != "teacher"}


def _teacher_tokenizer(work: Work, candidate: Candidate) -> Any:
    """A teacher's own tokenizer."""
    return artifacts.teacher(work, candidate.name or next(iter(work.recipe.all_teachers))).tokenizer()


def pairs_to_compare(work: Work, models: Iterable[Candidate]) -> list[tuple[str, str]]:
    """Each student with each candidate that it is compared with, by their labels.

    These candidates are the start, the control and the baselines. If this run trained the teachers on the student's
    text, they are compared too.
    """
    there = list(models)
    wanted = ("start", "control", *(["teacher"] if work.recipe.pretrain else []), "baseline")
    others = [one for role in wanted for one in there if one.role == role]
    return [(student.label, other.label) for student in there if student.role == "student" for other in others]
