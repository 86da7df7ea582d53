"""Capture of turns: what a teacher of another tokenizer says of the words of conversations or answers, for students of
every tokenizer.

The teacher reads a conversation, or an answer behind its prompt, by its own chat template. So what it reads is the same
whatever the student's tokenizer is, and a store is found by the teacher's own tokens. It has two numbers for each
learned token.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from potstill.data.collators import Collator, pad_token_id
from potstill.data.positions import supervised_labels
from potstill.data.token_bytes import TokenBytes
from potstill.device import device
from potstill.losses.compiled_kernels import worth_compiling
from potstill.losses.span_likelihood import TokenNumbers
from potstill.targets import StoreSpec
from potstill.targets.content_keys import Contents
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.capture_spans import UntoldMass, told_numbers


@dataclass(frozen=True)
class ReadTurns:
    """What a teacher reads of turns or answers.

    Args:
        samples: an indexable collection of the samples that it teaches, with its own `input_ids` and `labels`.
        theirs: the bytes of its tokens.
        end: its token that ends a turn.
    """

    samples: Any
    theirs: TokenBytes
    end: int

    def batches(self, size: int) -> SampleBatches:
        """The batches that it reads."""
        return replace(self._read, batch_size=size)

    @property
    def contents(self) -> Contents:
        """The keys and counts of all samples."""
        return self._read.contents

    @cached_property
    def _read(self) -> SampleBatches:
        return SampleBatches(self.samples, Collator(pad_token_id(self.theirs.tokenizer)), 1)


def capture_turns(
    store: StoreSpec,
    teacher: TeacherBeside,
    turns: ReadTurns,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
) -> tuple[int, UntoldMass]:
    """Write what a teacher says of turns into a store; those that are there already are not written again.

    Args:
        store: the store, with the codec of turns.
        teacher: the teacher. Its targets are whole distributions, or tell the likeliest tokens and the label.
        turns: what it reads.
        batch_size: the number of samples that it reads at the same time.
        worker: the number of this worker. Each writes its own shards.
        workers: how many workers write the store together.

    Returns:
        The number of learned tokens; and the mass that the teacher did not tell of those that it read here, without
        those of an earlier attempt.

    Raises:
        UserError: as :func:`capture`.
    """
    tokens = int(turns.contents.counts.sum())
    telling = _TurnNumbers(teacher, turns, worth_compiling(tokens, len(turns.theirs.each), device()))
    return capture(store, telling, turns.batches(batch_size), worker, workers), telling.untold


def numbers_of_turns(teacher: TeacherBeside, turns: ReadTurns, count: int) -> TokenNumbers:
    """What a teacher says of the learned tokens of the first samples, sample after sample."""
    batch = turns.batches(count).collate([turns.samples[at] for at in range(count)])
    moved = {name: each.to(device()) for name, each in batch.items()}
    (found,) = _TurnNumbers(teacher, turns).targets([moved])
    return found


class _TurnNumbers:
    """A teacher that tells two numbers of each token."""

    head = None

    def __init__(self, teacher: TeacherBeside, turns: ReadTurns, compile: bool = False) -> None:
        self._teacher, self._compile = teacher, compile
        self.untold = UntoldMass()
        self._begins = torch.from_numpy(turns.theirs.begins_word)
        self._ends = torch.arange(len(turns.theirs.each)) == turns.end

    def check_documents(self) -> None:
        """Nothing: a row is one sample."""

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[TokenNumbers]:
        """The numbers of each batch's learned tokens."""
        asked: deque[Tensor] = deque()

        def noted() -> Iterator[Mapping[str, Tensor]]:
            for batch in batches:
                asked.append(supervised_labels(batch))
                yield batch

        for target in self._teacher.targets(noted()):
            labels = asked.popleft()
            begins, ends = self._begins.to(labels.device), self._ends.to(labels.device)
            found, untold = told_numbers(target, labels, begins, ends, self._compile)
            if untold is not None:
                self.untold.add(untold)
            yield TokenNumbers(*(each.float().cpu() for each in found))
