"""Mixed batches: the micro-batches of an optimizer step, of whose samples the student writes some itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from potstill.data.collators import Collate, Collator
from potstill.data.labels import IGNORE_INDEX, count_supervised_by_row
from potstill.data.positions import PositionsCollator
from potstill.data.prompts.collator import TEACHER, AlignedCollator
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.files.atomic import digest
from potstill.generation.decoding import Key
from potstill.on_policy.prompts import SamplePrompt, prompts_of
from potstill.on_policy.rollouts import Rollout, RolloutWriter, chosen_rows
from potstill.recipe.on_policy import OnPolicy
from potstill.training.rank_batches import STAND_IN, untaught
from potstill.training.rollout_text import lost_text
from potstill.training.rollout_turns import RolloutTurns
from potstill.training.taught_rows import EachReadingCollator, OtherReading, TaughtRows, TaughtRowsCollator

SAMPLES, ROLLOUTS = "samples", "rollouts"
"""Columns of a batch that are no tensors: the samples that it was made of, and the rollouts that it is made of."""

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class KeptSamples:
    """The samples of a batch. Whoever moves a batch to a device leaves this as it is."""

    rows: tuple[Any, ...]


@dataclass(frozen=True)
class KeepSamples:
    """A collator that keeps the samples of each batch in it, so that other batches can be made of some of them."""

    collate: Collate

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """The collator's batch with its samples."""
        return {**self.collate(samples), SAMPLES: KeptSamples(tuple(samples))}


class MixedBatch(dict[str, Any]):
    """A micro-batch in parts, which are read one after the other: samples of the corpus, and rollouts.

    To whoever does not know of parts, it is its first part.
    """

    def __init__(self, parts: Sequence[Batch]) -> None:
        super().__init__(parts[0])
        self.parts = parts


def parts_of(batch: Batch) -> Sequence[Batch]:
    """The parts of a micro-batch; of one without parts, the batch itself."""
    return batch.parts if isinstance(batch, MixedBatch) else [batch]


class MixedBatches:
    """Replaces some rows of each step's micro-batches by rollouts of the same prompts.

    Args:
        settings: the share of such rows, and how they are written.
        writer: writes rollouts.
        collate: makes a batch of samples of the corpus.
        pad: the id of pads.
        seed: decides which rows are replaced.
    """

    def __init__(self, settings: OnPolicy, writer: RolloutWriter, collate: Collate, pad: int, seed: int) -> None:
        self._settings, self._writer = settings, writer
        self._collate, self._pad, self._seed = collate, pad, seed
        self.rank = 0
        self.taught: TaughtRows | None = None
        """Which rows each teacher reads; None where each reads all of them."""
        self.others: dict[int, OtherReading] = {}
        """What each teacher of another tokenizer reads of a batch, by the teacher's number."""
        self.ours: TokenBytes | None = None
        """The bytes of the student's tokens, where there are such teachers."""
        self.turns: RolloutTurns | None = None
        """What they read of an answer behind prompts of their own; None where they read the student's text."""
        self.teacher_positions: int | None = None
        """The fewest positions of a teacher of the student's tokenizer; None where they are not limited."""
        self.kept: list[Rollout] = []
        """The rollouts that later steps learn from, too."""

    def count(self, rows: int, step: int) -> int:
        """The number of rollouts among ``rows`` samples of a step. Over several steps, their share is as it was set."""
        place = step - self._settings.from_step
        if place < 0:
            return 0
        return round(self._settings.share * rows * (place + 1)) - round(self._settings.share * rows * place)

    def mix(self, batches: Sequence[Batch], step: int) -> tuple[list[Batch], list[Rollout]]:
        """Replace rows of the micro-batches of a step, and the rollouts that took their place, the dropped ones too.

        Args:
            batches: made by :class:`KeepSamples`.
            step: the number of steps that were taken.

        Raises:
            UserError: no prompt leaves room for an answer.
        """
        taught = [[] if STAND_IN in batch else self.taught_rows(batch[SAMPLES].rows) for batch in batches]
        sizes = [len(rows) for rows in taught]
        places = chosen_rows(sizes, self.count(sum(sizes), step), self._number(step))
        chosen = [[rows[place] for place in of_batch] for rows, of_batch in zip(taught, places, strict=True)]
        prompts = [self._prompts(batch, rows) for batch, rows in zip(batches, chosen, strict=True)]
        rollouts = self._rollouts([prompt for found in prompts for prompt in found.values()], step)
        left = iter(rollouts)
        mixed = [
            self._mixed(batch, {row: next(left) for row in found}) if found else batch
            for batch, found in zip(batches, prompts, strict=True)
        ]
        return mixed, rollouts

    def taught_rows(self, samples: Sequence[Any]) -> list[int]:
        """The places of the samples that have a teacher who reads an answer. Without one, an answer would teach
        nothing."""
        taught, turns = self.taught, self.turns
        return [
            row
            for row, sample in enumerate(samples)
            if (taught is None or taught.group_of(sample)) and (turns is None or turns.reads(sample))
        ]

    def write(self, asked: Mapping[Key, SamplePrompt], step: int) -> dict[Key, Rollout]:
        """Answers to prompts (:meth:`RolloutWriter.write`)."""
        return self._writer.write(asked, step)

    def close(self) -> None:
        """Give back the memory that writing has taken (:meth:`RolloutWriter.close`)."""
        self._writer.close()

    def first_prompts(self, batch: Mapping[str, Tensor], samples: Sequence[Any]) -> list[SamplePrompt]:
        """The prompts of a batch that leave room for an answer."""
        found = zip(prompts_of(batch, self._settings.beginning), samples, strict=True)
        asked = [self._taught(prompt, sample) for prompt, sample in found]
        return [prompt for prompt in asked if prompt is not None and self._fits(prompt)]

    def lost_text(self, rollout: Rollout) -> list[tuple[int, int]]:
        """For each teacher of another tokenizer that reads a rollout: the bytes of it that are lost to the teacher, and
        all of its bytes."""
        if self.turns is not None:
            return self.turns.lost_text(rollout)
        return [] if self.ours is None else [lost_text(self.ours, rollout)] * len(self.others)

    def _taught(self, prompt: SamplePrompt | None, sample: Any) -> SamplePrompt | None:
        """The prompt with what its sample says of teachers; None where none of them would read an answer to it."""
        if prompt is None:
            return None
        if self.turns is not None:
            prompt = replace(prompt, others=self.turns.prompts(sample, prompt.student))
            if not any(prompt.others or ()):
                return None
        if self.taught is None:
            return prompt
        return replace(prompt, taught_by=[self.taught.names[number] for number in self.taught.group_of(sample)])

    def _sample(self, rollout: Rollout) -> dict[str, Any]:
        return rollout.sample() | ({} if self.turns is None else self.turns.columns(rollout))

    def reference_length(self, batches: Sequence[Batch]) -> float | None:
        """The mean number of learned tokens of a step's samples; None where they are texts, which no answer is like."""
        rows = [batch for batch in batches if STAND_IN not in batch]
        if not rows or any((batch["labels"][:, 0] != IGNORE_INDEX).any() for batch in rows):
            return None
        return float(torch.cat([count_supervised_by_row(batch) for batch in rows]).float().mean())

    def batch_of(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        """Rollouts as a batch, those of the same teachers together."""
        if (taught := self.taught) is not None:
            rollouts = sorted(rollouts, key=lambda one: taught.group_of(one.sample()))
        samples = [self._sample(one) for one in rollouts]
        aligned = f"{TEACHER}input_ids" in samples[0]
        collate: Collate = (AlignedCollator if aligned else Collator)(self._pad)
        if taught is not None:
            collate = TaughtRowsCollator(collate, taught)
        elif self.others:
            collate = EachReadingCollator(collate, tuple(self.others.values()))
        return PositionsCollator(collate)(samples) | {ROLLOUTS: KeptSamples(tuple(rollouts))}

    def learned_first(self, rollouts: Sequence[Rollout], log_probs: Sequence[float]) -> None:
        """Remember the log-probabilities of the tokens of kept rollouts when they were first learned."""
        places = {id(one): at for at, one in enumerate(self.kept)}
        first = 0
        for one in rollouts:
            last = first + len(one.ids)
            if one.log_probs is None and id(one) in places:
                self.kept[places[id(one)]] = replace(one, log_probs=list(log_probs[first:last]))
            first = last

    def _number(self, step: int) -> int:
        return int(digest([self._seed, step, self.rank])[:15], 16)

    def _prompts(self, batch: Batch, rows: list[int]) -> dict[int, SamplePrompt]:
        """The prompts of some rows, by row; without those that leave no room for an answer."""
        if not rows:
            return {}
        columns = ("input_ids", "attention_mask", "labels", "position_ids")
        # Of a teacher of another tokenizer, the batch has tokens that are none of the student's.
        prefix = "" if self.others else TEACHER
        named = [name for name in batch if name.removeprefix(prefix) in columns]
        found = prompts_of({name: batch[name][rows].cpu() for name in named}, self._settings.beginning)
        samples = batch[SAMPLES].rows
        asked = {row: self._taught(prompt, samples[row]) for row, prompt in zip(rows, found, strict=True)}
        taught = {row: prompt for row, prompt in asked.items() if prompt is not None}
        fitting = {row: prompt for row, prompt in taught.items() if self._fits(prompt)}
        if taught and not fitting:
            shortest = min(len(prompt.student) for prompt in taught.values())
            raise UserError(
                f"`on_policy.max_new_tokens` is {self._settings.max_new_tokens:,}, and with prompts of {shortest:,} "
                "tokens and more an answer has no room in the positions of student and teachers; lower it"
            )
        return fitting

    def _fits(self, prompt: SamplePrompt) -> bool:
        theirs = prompt.student if prompt.teacher is None else prompt.teacher
        most = self.teacher_positions
        return self._writer.fits(prompt) and (most is None or len(theirs) + self._settings.max_new_tokens <= most)

    def _rollouts(self, prompts: Sequence[SamplePrompt], step: int) -> list[Rollout]:
        """As many rollouts as there are prompts: written now, or kept from an earlier step."""
        samples = self._settings.samples
        is_fresh = (step - self._settings.from_step) % self._settings.refresh_every == 0 or not self.kept
        if not is_fresh:
            return list(islice(cycle(self.kept), len(prompts)))
        needed = -(-len(prompts) // samples)
        (answered,) = chosen_rows([len(prompts)], needed, self._number(step))
        alike = Counter[str]()
        asked: dict[Key, SamplePrompt] = {}
        for prompt in (prompts[at] for at in answered):
            # By the prompt itself, so that it does not matter on which rank it is answered.
            name = digest([step, prompt.student, prompt.teacher])
            alike[name] += 1
            for sample in range(min(samples, len(prompts) - len(asked))):
                asked[f"{name}/{alike[name]}", sample] = prompt
        found = [*self._writer.write(asked, step).values()]
        self.kept = found if self._settings.refresh_every > 1 else []
        return found

    def _mixed(self, batch: Batch, rollouts: Mapping[int, Rollout]) -> Batch:
        others = [sample for row, sample in enumerate(batch[SAMPLES].rows) if row not in rollouts]
        parts: list[Batch] = [self._collate(others)] if others else []
        learned = [one for one in rollouts.values() if one.finished or self._settings.unfinished == "learn"]
        if learned:
            parts.append(self.batch_of(learned))
        if not parts:
            # Other ranks wait for the gradients of this one, so there must be a part.
            parts.append(untaught(self.batch_of([*rollouts.values()])) | {ROLLOUTS: KeptSamples(())})
        return MixedBatch(parts)
