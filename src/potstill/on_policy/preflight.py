"""Pre-flight: whether on-policy training is worth its cost, told from a few answers before the first step.

The student writes answers to some prompts, and both models score them. On-policy training works if the student's
answers are not strange to the teacher, and if the teacher knows something that the student does not ("Rethinking
on-policy distillation", arXiv 2604.13016). The three rules, in their order:

1. ``teacher_knows_no_better``: the teacher's loss on the references is not below the student's beyond chance, or both
   models write alike.
2. ``start_off_policy_first``: the student's answers are too strange to the teacher, or too few of them end.
3. ``go``.

Intervals are over prompts, because the samples of one prompt are not independent of each other.

Shapes: R written samples, Q references.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from potstill.errors import UserError
from potstill.metrics.bootstrap import Sums, bootstrap, paired
from potstill.metrics.results import FEWEST_UNITS, Paired, Result
from potstill.report import number_format
from potstill.report.data import Metric

Outlook = Literal["go", "start_off_policy_first", "teacher_knows_no_better"]

TRAINED_KL = 0.04
"""Nats per token: a KL at which on-policy training was seen to work (MOPD, arXiv 2606.30406)."""
MOST_KL = 0.19
"""Nats per token: the KL at which it was seen to fail (the same source)."""
LEAST_KL = 0.001
"""Nats per token: below this, the two models write alike, and there is nothing to learn."""
LEAST_OVERLAP = 0.5
"""The share of the likeliest tokens that two models of compatible habits have in common at least."""
LEAST_STOPPED = 0.5
"""The share of answers that must end by themselves. A cut answer teaches the student nothing about ending."""

KL = Metric("kl", "KL", "nats per written token", None)
OVERLAP = Metric("overlap", "Overlap", "of the 16 likeliest tokens", None, percent=True)
STOPPED = Metric("stopped", "Stopped", "answers that end by themselves", None, percent=True)
ADVANTAGE = Metric("advantage", "Advantage", "nats per reference token", None)


@dataclass(frozen=True, eq=False)
class WrittenSums:
    """What was measured of the written samples: each array is [R]."""

    prompts: NDArray[np.int64]
    """The number of each sample's prompt. Several samples may answer one prompt."""
    tokens: NDArray[np.int64]
    """The number of written tokens."""
    reverse_kl: NDArray[np.float64]
    """KL(student ‖ teacher) in nats, summed over the written tokens."""
    overlap: NDArray[np.float64]
    """The share of the student's 16 likeliest tokens that are among the teacher's, summed over the written tokens."""
    stopped: NDArray[np.bool_] | None
    """Whether the answer ended by itself; None where answers need not end, as when the student continues a text."""


@dataclass(frozen=True, eq=False)
class ReferenceSums:
    """The losses of both models on the references: each array is [Q]."""

    tokens: NDArray[np.int64]
    """The number of supervised tokens."""
    teacher_nll: NDArray[np.float64]
    """The teacher's loss in nats, summed over these tokens; it reads its own prompt."""
    student_nll: NDArray[np.float64]
    """The student's."""


@dataclass(frozen=True)
class Preflight:
    """What was measured before on-policy training, and what it means."""

    prompts: int
    samples: int
    step: int
    """The optimizer steps that the student had made."""
    kl: Result
    overlap: Result
    stopped: Result | None
    """None: the student continues texts, which need not end."""
    advantage: Paired | None
    """The student's loss on the references minus the teacher's. None: there are no references."""

    def _no_better(self) -> list[str]:
        """Why the teacher knows no better, a sentence each. Too few references tell nothing about it."""
        told = self.advantage
        reasons = []
        if told is not None and not told.too_few and told.low <= 0:
            reasons.append(
                "This teacher was not seen to know better here: the student's loss on the references minus the "
                f"teacher's is {number_format.difference_interval(told, ADVANTAGE)} nats per token, which is not above "
                "zero beyond chance."
            )
        if self.kl.high < LEAST_KL:
            reasons.append(
                "There is nothing left to learn: the student already writes as the teacher does, with a KL of "
                f"{number_format.interval(self.kl, KL)} nats per token on its own answers."
            )
        return reasons

    def _too_strange(self) -> list[str]:
        """Why to start off-policy, a clause each."""
        reasons = []
        if self.kl.low > MOST_KL:
            reasons.append(
                f"the student's KL to the teacher on its own answers is {number_format.interval(self.kl, KL)} nats per "
                f"token (training was seen to fail from {MOST_KL} on)"
            )
        if self.overlap.high < LEAST_OVERLAP:
            shared = number_format.interval(self.overlap, OVERLAP)
            reasons.append(f"only {shared} of the student's likeliest tokens are the teacher's")
        if self.stopped is not None and self.stopped.high < LEAST_STOPPED:
            ended = number_format.interval(self.stopped, STOPPED)
            reasons.append(f"only {ended} of the student's answers end by themselves")
        return reasons

    @property
    def verdict(self) -> Outlook:
        """What to do."""
        if self._no_better():
            return "teacher_knows_no_better"
        return "start_off_policy_first" if self._too_strange() else "go"

    @property
    def sentence(self) -> str:
        """The verdict in plain English, with the figures that decided it."""
        no_better, too_strange = self._no_better(), self._too_strange()
        said = no_better or [
            f"Start off-policy first: {number_format.listed(too_strange)}." if too_strange else self._go()
        ]
        return " ".join([*said, *self._doubts()])

    def _go(self) -> str:
        found = [
            f"its KL to the teacher on its own answers is {number_format.interval(self.kl, KL)} nats per token",
            f"they share {number_format.interval(self.overlap, OVERLAP)} of their likeliest tokens",
        ]
        if self.stopped is not None:
            found.append(f"{number_format.interval(self.stopped, STOPPED)} of its answers end by themselves")
        said = f"The student can learn on-policy: {number_format.listed(found)}."
        if self.kl.value > MOST_KL:
            said += (
                f" Training was seen to fail from {MOST_KL} on, and more prompts may show that this KL is beyond it."
            )
        elif self.kl.value > TRAINED_KL:
            said += f" This KL is between what was seen to train ({TRAINED_KL}) and what was seen to fail ({MOST_KL})."
        if self.advantage is not None and not self.advantage.too_few:
            gain = number_format.difference_interval(self.advantage, ADVANTAGE)
            said += f" On the references, the student's loss minus the teacher's is {gain} nats per token."
        return said

    def _doubts(self) -> list[str]:
        """What few prompts or few references do not tell."""
        doubts = []
        if self.kl.n < FEWEST_UNITS:
            doubts.append(f"With fewer than {FEWEST_UNITS} prompts, these intervals are too narrow to be trusted.")
        if self.advantage is not None and self.advantage.too_few:
            doubts.append(
                f"Fewer than {FEWEST_UNITS} references do not tell whether the teacher knows better than the student."
            )
        return doubts

    def as_json(self) -> dict[str, Any]:
        """The content of `preflight.json`."""
        told = self.advantage
        return {
            "prompts": self.prompts,
            "samples": self.samples,
            "step": self.step,
            **{name: _ends(getattr(self, name)) for name in ("kl", "overlap")},
            "stopped": None if self.stopped is None else _ends(self.stopped),
            "advantage": None if told is None else {"value": told.difference, "low": told.low, "high": told.high},
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


def verdict(written: WrittenSums, references: ReferenceSums | None = None, *, step: int = 0) -> Preflight:
    """Judge on-policy training from written samples and, where there are some, references.

    Args:
        step: the optimizer steps that the student has made.

    Raises:
        UserError: there are fewer than two prompts or two references, no token, or a figure that is not finite.
    """
    prompts, unit = np.unique(written.prompts, return_inverse=True)
    _check(len(prompts), "prompts", written.tokens, (written.reverse_kl, written.overlap))

    def figure(metric: Metric, numerator: NDArray[Any], denominator: NDArray[Any]) -> Result:
        sums = [np.bincount(unit, weights=each, minlength=len(prompts)) for each in (numerator, denominator)]
        found = bootstrap("student", metric.name, Sums(*sums, can_exceed_one=not metric.percent))
        return replace(found, high=min(found.high, 1.0)) if metric.percent else found

    return Preflight(
        len(prompts),
        len(written.tokens),
        step,
        figure(KL, written.reverse_kl, written.tokens),
        figure(OVERLAP, written.overlap, written.tokens),
        None if written.stopped is None else figure(STOPPED, written.stopped, np.ones(len(written.stopped))),
        None if references is None else _advantage(references),
    )


def _advantage(references: ReferenceSums) -> Paired:
    nll = (references.student_nll, references.teacher_nll)
    _check(len(references.tokens), "references", references.tokens, nll)
    student, teacher = (Sums(each, references.tokens, can_exceed_one=True) for each in nll)
    return paired(("student", "teacher"), ADVANTAGE.name, (student, teacher))


def _check(units: int, what: str, tokens: NDArray[np.int64], sums: tuple[NDArray[np.float64], ...]) -> None:
    if units < 2:
        raise UserError(
            f"the pre-flight of `on_policy` has too few {what} ({units}), and an interval needs at least 2; give the "
            "corpus more"
        )
    if not tokens.sum():
        raise UserError(f"the pre-flight of `on_policy` found no token to score in its {what}; check the corpus")
    if not all(np.isfinite(each).all() for each in sums):
        raise UserError(
            f"the pre-flight of `on_policy` found a score that is not a finite number in its {what}; the student or "
            "the teacher is broken"
        )


def _ends(found: Result) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
