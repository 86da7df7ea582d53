"""On-policy training: what a training with rollouts keeps from step to step, and the losses of its rollouts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from potstill.errors import UserError
from potstill.files.atomic import read_json, write_text
from potstill.losses.loss import Loss
from potstill.losses.policy_gradient import label_log_probs, policy_gradient_loss
from potstill.losses.teacher_target import GroupedTarget, HiddenTarget, LogitsTarget, TeacherTarget, first_rows
from potstill.losses.token_scores import score_tokens
from potstill.losses.written_scores import score_written
from potstill.models.head import Head
from potstill.on_policy.evidence import ROLLOUTS as ROLLOUTS_FILE
from potstill.on_policy.evidence import Evidence
from potstill.on_policy.figures import StepFigures
from potstill.on_policy.guard import Guard
from potstill.on_policy.rollouts import Rollout
from potstill.recipe.error_messages import complaint
from potstill.recipe.losses import PolicyGradient
from potstill.recipe.on_policy import OnPolicy
from potstill.targets import TargetStore
from potstill.teachers.beside import TeacherBeside
from potstill.training.mixed_batches import ROLLOUTS, MixedBatches
from potstill.training.teaching import Teaching

SCORED_SHARE = 4
"""At least one in so many rollouts of a step has its tokens scored for the log. Scoring computes their logits again."""


def rollout_losses(settings: OnPolicy, losses: Sequence[Loss]) -> tuple[list[Loss], list[PolicyGradient]]:
    """The divergences and the policy gradients of written samples.

    Args:
        settings: the settings, with losses or without.
        losses: the losses of the other samples, whose divergences are the default.

    Raises:
        UserError: there are none, or they need one tokenizer and the teachers have others.
    """
    crossing = next((loss.kind for loss in losses if loss.crosses_tokenizers), None)
    if crossing is not None and settings.losses is not None:
        raise UserError(
            f"{crossing} is for a teacher of another tokenizer, and {settings.losses[0].kind} of `on_policy.losses` "
            f"needs the teacher's probability of each token of the student; remove `on_policy.losses`, and {crossing} "
            "is learned from written samples, too"
        )
    if settings.losses is None:
        found = [loss for loss in losses if loss.needs_teacher]
        if not found:
            raise UserError(
                "written samples have no loss, because cross-entropy is not learned from them; give `on_policy.losses`"
            )
        return found, []
    gradients = [loss for loss in settings.losses if isinstance(loss, PolicyGradient)]
    return [Loss(**loss.model_dump()) for loss in settings.losses if loss not in gradients], gradients


def rollout_settings(given: Any) -> OnPolicy | None:
    """The settings of a trainer's `on_policy`; None where the student writes nothing.

    Raises:
        UserError: it is neither :class:`OnPolicy` nor a dictionary with its keys.
    """
    if isinstance(given, Mapping):
        try:
            given = OnPolicy.model_validate(given)
        except ValidationError as error:
            raise UserError(f"`on_policy`: {complaint(error, given)}") from None
    if given is not None and not isinstance(given, OnPolicy):
        raise UserError(
            f"`on_policy` has the type {type(given).__name__}; give `OnPolicy(share=0.5)`, or a dictionary of its keys"
        )
    return given if given is not None and given.share else None


def rollout_teachers(
    beside: Sequence[TeacherBeside | TargetStore], given: Sequence[TeacherBeside | TargetStore]
) -> list[TeacherBeside]:
    """The teachers that read written samples.

    Args:
        beside: the teachers of the other samples.
        given: the teachers of written samples; empty: the same ones.

    Raises:
        UserError: a teacher is a store of captured targets, which knows no written sample.
    """
    teachers = given or beside
    if given and len(given) != len(beside):
        raise UserError(
            f"`rollout_teacher` has {len(given)} teachers, and `teacher` has {len(beside)}; give the same ones, in the "
            "same order"
        )
    stores = [one.path for one in teachers if isinstance(one, TargetStore)]
    if stores:
        raise UserError(
            f"`on_policy`: {stores[0]} has targets of the samples that were captured, and of no sample that the "
            "student writes; give the teacher itself as `rollout_teacher=`"
        )
    if not teachers:
        raise UserError("`on_policy` needs a teacher that reads what the student writes; give `teacher=` a model")
    return [one for one in teachers if not isinstance(one, TargetStore)]


@dataclass
class OnPolicyTraining:
    """The state of a training with rollouts.

    Its random state is no part of it: what is written in a step depends on the seed, the step and the weights alone.
    """

    settings: OnPolicy
    losses: list[Loss]
    gradients: list[PolicyGradient]
    teaching: Teaching
    batches: MixedBatches
    figures: StepFigures
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of every loss: `vocabulary`, `memory_budget`, `compile` and `casts`."""
    guard: Guard = field(default_factory=Guard)
    evidence: Evidence | None = None
    rollouts: list[Rollout] = field(default_factory=list)
    """Those of this step, on this rank."""
    _step: int = 0
    _unscored: int = 0
    _to_keep: int = 0

    def begin(self) -> None:
        """Forget an earlier training of the same trainer."""
        self.evidence, self.rollouts, self.batches.kept = None, [], []
        self.figures.clear()
        self.guard.reset()

    def is_active(self, step: int) -> bool:
        """Whether a step may have rollouts."""
        return step >= self.settings.from_step

    def mix(
        self, batches: Iterable[Mapping[str, Any]], step: int, steps: int, autocast: AbstractContextManager[Any]
    ) -> list[Mapping[str, Any]]:
        """The micro-batches of a step, some of whose rows are rollouts now.

        Args:
            batches: those of the corpus.
            step: the number of steps that were taken.
            steps: the number of steps of the training.
            autocast: the number format in which the student is trained.
        """
        self._prepare(steps)
        assert self.evidence is not None
        of_corpus = list(batches)
        if step == self.settings.from_step:
            self.guard.reference_length = self.batches.reference_length(of_corpus)
        with self.figures.timed("write"), autocast:
            mixed, self.rollouts = self.batches.mix(of_corpus, step)
        if self.rollouts:
            self.figures.add(self.rollouts, step)
            for one in self.rollouts:
                for lost in self.batches.lost_text(one):
                    self.figures.add_text(*lost)
            self._unscored = max(self.evidence.wanted(step), -(-len(self.rollouts) // SCORED_SHARE))
        self._step, self._to_keep = step, self.evidence.wanted(step)
        return mixed

    def _prepare(self, steps: int) -> None:
        if self.evidence is None:
            self.evidence = Evidence(self.settings.from_step, steps)

    def timed(self, part: str, inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Add the time of the block to a part of the work on rollouts, if the batch has any."""
        return self.figures.timed(part) if ROLLOUTS in inputs else nullcontext()

    def loss(
        self,
        inputs: Mapping[str, Any],
        outputs: tuple[Float[Tensor, "N states"], Head | None, Int[Tensor, "N"]],
        target: TeacherTarget | GroupedTarget | None,
        denominator: Tensor,
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """The weighted policy gradients of a batch of rollouts, with the terms to log. It also scores some tokens.

        Args:
            inputs: the batch.
            outputs: the student's states at the supervised tokens, its head, and the labels.
            target: the teachers' targets.
            denominator: what the sum is divided by.
        """
        rollouts: Sequence[Rollout] = inputs[ROLLOUTS].rows
        states, head, labels = outputs
        if not rollouts or target is None:
            return 0.0, {}
        self.figures.add_trained(len(labels))
        self._score(rollouts, outputs, target)
        total: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        for one in self.gradients:
            of_teacher = label_log_probs(target, labels, vocabulary=self.options["vocabulary"])
            before = self._log_probs_when_written(rollouts, outputs)
            value, logged = policy_gradient_loss(
                states, head, labels, of_teacher, before, clip=one.clip, denominator=denominator, **self.options
            )
            total, terms = total + one.weight * value, terms | logged
        return total, terms

    def _log_probs_when_written(
        self, rollouts: Sequence[Rollout], outputs: tuple[Tensor, Head | None, Tensor]
    ) -> Tensor | None:
        """The student's log-probabilities when rollouts were first learned; None if they are learned for the first
        time, because they are those of the student as it is now."""
        if self.settings.refresh_every == 1:
            return None
        states, head, labels = outputs
        old = [one.log_probs for one in rollouts]
        if any(values is None for values in old):
            options = {name: self.options[name] for name in ("vocabulary", "memory_budget")}
            now = -score_tokens(states.detach(), head, labels, **options)["nll"]
            self.batches.learned_first(rollouts, now.tolist())
            return None
        flat = [value for values in old if values is not None for value in values]
        return torch.tensor(flat, device=labels.device, dtype=torch.float32)

    def _score(
        self,
        rollouts: Sequence[Rollout],
        outputs: tuple[Tensor, Head | None, Tensor],
        target: TeacherTarget | GroupedTarget,
    ) -> None:
        """Score the tokens of the first rollouts, until enough of this step are scored."""
        assert self.evidence is not None
        scored = rollouts[: self._unscored]
        if not scored:
            return
        self._unscored -= len(scored)
        states, head, labels = outputs
        tokens = sum(len(one.ids) for one in scored)
        student = LogitsTarget(states[:tokens]) if head is None else HiddenTarget(states[:tokens].detach(), head)
        options = {name: self.options[name] for name in ("vocabulary", "memory_budget")}
        scores = score_written(student, labels[:tokens], first_rows(target, tokens), **options)
        self.figures.add_scores(scores)
        kept = scored[: self._to_keep]
        if kept:
            self._to_keep -= len(kept)
            self.evidence.add(self._step, kept, {name: values.float().cpu() for name, values in scores.items()})

    def save(self, checkpoint: Path, rank: int) -> None:
        """Write this rank's state into a checkpoint."""
        kept = [one.as_json() for one in self.batches.kept]
        state = {"kept": kept, "guard": self.guard.state()}
        write_text(checkpoint / _state_file(rank), json.dumps(state))
        if rank == 0 and self.evidence is not None:
            self.evidence.save(checkpoint / ROLLOUTS_FILE)

    def load(self, checkpoint: Path, rank: int, steps: int) -> None:
        """Read what :meth:`save` wrote, where the checkpoint has it: it may be older than the first rollout.

        Raises:
            UserError: the file is damaged.
        """
        file = checkpoint / _state_file(rank)
        if file.exists():
            state = read_json(file)
            self.batches.kept = [Rollout.from_json(one) for one in state["kept"]]
            self.guard.restore(state["guard"])
        if rank == 0 and (checkpoint / ROLLOUTS_FILE).exists():
            self._prepare(steps)
            assert self.evidence is not None
            self.evidence.load(checkpoint / ROLLOUTS_FILE)


def _state_file(rank: int) -> str:
    return f"on_policy_{rank}.json"
