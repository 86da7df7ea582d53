"""The models under comparison: teachers, the student before and after, the control; and what a measurement says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from potstill.metrics.bootstrap import Paired, Result
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate, own_candidates


@dataclass(frozen=True)
class CandidateModel:
    """A candidate of one seed, and how its model is loaded."""

    candidate: Candidate
    load: Callable[[], PreTrainedModel]
    """Loads it, for reading only, onto this machine's device."""
    tokenizer: Callable[[], Any] | None = None
    """Loads its own tokenizer; None: it has the run's."""


Models = Mapping[Candidate, Sequence[CandidateModel]]
"""The models of each candidate, one for each seed that it was trained with; the keys have no seed."""


@dataclass(frozen=True)
class Measurement:
    """What one measurement found."""

    rows: Sequence[Result] = ()
    """Every model's metrics."""
    pairs: Sequence[Paired] = ()
    """The students' differences from other models, on the same items."""
    outputs: Sequence[Path] = ()
    """Files and folders to be kept, in the step's folder."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Figures for the manifest."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else goes into `comparison.json`."""


def own_models(work: Work) -> Models:
    """Every model of a run that can be measured."""
    found: dict[Candidate, list[CandidateModel]] = {}
    for one in own_candidates(work.recipe):
        tokenizer = partial(_teacher_tokenizer, work, one) if one.role == "teacher" else None
        model = CandidateModel(one, partial(artifacts.own_model, work, one), tokenizer)
        found.setdefault(one.of_all_seeds, []).append(model)
    return found


def _teacher_tokenizer(work: Work, candidate: Candidate) -> Any:
    """A teacher's own tokenizer."""
    return artifacts.teacher(work, candidate.name or next(iter(work.recipe.all_teachers))).tokenizer()


def pairs_to_compare(work: Work, models: Iterable[Candidate]) -> list[tuple[str, str]]:
    """Each student with each candidate that it is compared with, by their labels.

    They are the start, the control and the baselines; and the teachers, where they were trained here on the student's
    own text.
    """
    there = list(models)
    wanted = ("start", "control", *(["teacher"] if work.recipe.pretrain else []), "baseline")
    others = [one for role in wanted for one in there if one.role == role]
    return [(student.label, other.label) for student in there if student.role == "student" for other in others]
