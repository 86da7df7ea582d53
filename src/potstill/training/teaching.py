"""Teaching: the teachers of one training, and their targets for each batch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from potstill.data.prompts.collator import teacher_batch
from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import GroupedTarget, MixedTarget, TeacherTarget, TokenGroup, rows_of
from potstill.models.forward import LayerStates
from potstill.targets import TargetStore
from potstill.targets.codecs.spans import SpanNumbers
from potstill.targets.collator import records_column
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.beside import TeacherBeside
from potstill.training.taught_rows import GROUPS, TaughtGroups, reader_of


@dataclass(frozen=True)
class TaughtTokens:
    """Some supervised tokens that follow one another, and a teacher's share in teaching them."""

    rows: slice
    share: float


@dataclass(frozen=True)
class Teaching:
    """Teachers that read a batch together."""

    teachers: Sequence[TeacherBeside | TargetStore]
    shares: tuple[float, ...]
    """The teachers' shares in an ensemble of all of them. They sum to one."""
    mix: Literal["probabilities", "logits"]
    names: tuple[str, ...] | None
    """The teachers' names, if each teaches only the rows that name it; None: each teaches every row."""

    def read(
        self,
        batch: Mapping[str, Any],
        temperature: float | None,
        layers: Sequence[Collection[int]] = (),
        compile: bool = False,
    ) -> tuple[TeacherTarget | GroupedTarget | None, list[LayerStates]]:
        """The teachers' target for a batch, and the outputs of some layers of each.

        Args:
            batch: the batch of the student, with the records of captured targets; where teachers have names, as
                ``taught_rows.TaughtRows`` shares it out. The target is then in the order of its groups.
            temperature: that of captured targets. None: no target is wanted.
            layers: numbers of layers, for each teacher.
            compile: whether to fuse what is computed of a teacher's logits before the loss, of another tokenizer.
        """
        targets: dict[int, TeacherTarget] = {}
        inner: list[LayerStates] = []
        for number, one in enumerate(self.teachers):
            if isinstance(one, TargetStore):
                assert temperature is not None
                captured = one.decode(batch[records_column(number)], temperature)
                assert not isinstance(captured, SpanNumbers | TokenNumbers), "spans are read by `CapturedSpans`"
                targets[number] = captured
                continue
            reads = self._reads(batch, number)
            wanted = layers[number] if layers else ()
            found: LayerStates = {}
            if reads is not None:
                options = {"compile": compile} if isinstance(one, TeacherAcross) else {}
                targets[number], found = one.read(reads, wanted, temperature or 1.0, **options)
            inner.append(found)
        if temperature is None:
            return None, inner
        if self.names is not None:
            return GroupedTarget(tuple(self._groups(batch[GROUPS], targets, self.names))), inner
        return self._together(tuple(range(len(self.teachers))), [*targets.values()]), inner

    def _reads(self, batch: Mapping[str, Tensor], number: int) -> dict[str, Tensor] | None:
        reader = reader_of(number)
        own = {name.removeprefix(reader): value for name, value in batch.items() if name.startswith(reader)}
        return own or (teacher_batch(batch) if self.names is None else None)

    def _together(self, members: tuple[int, ...], targets: Sequence[TeacherTarget]) -> TeacherTarget:
        if len(members) == 1:
            return targets[0]
        return MixedTarget(tuple(targets), self.shares_of(members), self.mix)

    def shares_of(self, members: tuple[int, ...]) -> tuple[float, ...]:
        """The shares of some teachers in an ensemble of these alone."""
        if len(members) == len(self.teachers):
            return self.shares
        total = sum(self.shares[member] for member in members)
        return tuple(self.shares[member] / total for member in members)

    def _groups(
        self, groups: TaughtGroups, targets: Mapping[int, TeacherTarget], names: tuple[str, ...]
    ) -> list[TokenGroup]:
        found, read = [], dict.fromkeys(targets, 0)
        for group in (group for group in groups.groups if group.tokens):
            own: list[TeacherTarget] = []
            for member in group.teachers:
                first = read[member]
                read[member] = first + group.tokens
                own.append(rows_of(targets[member], first, read[member]))
            target = self._together(group.teachers, own) if own else None
            found.append(TokenGroup(group.tokens, target, tuple(names[member] for member in group.teachers)))
        return found

    def taught(self, batch: Mapping[str, Any]) -> list[list[TaughtTokens]] | None:
        """The supervised tokens of a batch that each teacher teaches, by their places in the order of its groups; None
        where each teaches all of them."""
        if self.names is None:
            return None
        return [self._tokens_of(teacher, batch[GROUPS]) for teacher in range(len(self.teachers))]

    def _tokens_of(self, teacher: int, groups: TaughtGroups) -> list[TaughtTokens]:
        found, first = list[TaughtTokens](), 0
        for group in groups.groups:
            rows = slice(first, first + group.tokens)
            if teacher in group.teachers:
                share = self.shares_of(group.teachers)[group.teachers.index(teacher)]
                found.append(TaughtTokens(rows, share))
            first = rows.stop
        return found


def shares_of_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """The shares of teachers, which sum to one, by their weights; equal shares without weights.

    Raises:
        UserError: there is not one weight above 0 for each teacher.
    """
    given = [1.0] * count if weights is None else list(weights)
    if len(given) != count or any(weight <= 0 for weight in given):
        raise UserError(f"`teacher_weights` must give each of the {count} teachers a weight above 0, not {given}")
    return tuple(weight / sum(given) for weight in given)
