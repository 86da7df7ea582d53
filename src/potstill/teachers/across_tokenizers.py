"""Across tokenizers: a teacher that reads the text of the student's batches by a tokenizer of its own."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from potstill.data.collators import Collate
from potstill.data.positions import supervised_labels
from potstill.data.text_of_batch import SAME_BYTE, SPANS, TextCollator
from potstill.data.token_alignment import NOWHERE
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import check_other_tokens
from potstill.data.turns_of_batch import TurnsCollator
from potstill.errors import UserError
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.loss import Loss
from potstill.losses.span_likelihood import joined
from potstill.losses.span_scores import numbers_of
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, PairedRows, SpanTarget
from potstill.models.forward import LayerStates
from potstill.models.size import positions_of
from potstill.targets import TargetStore
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.captured_spans import captured_alike, captured_spans, check_spans


class TeacherAcross:
    """A live teacher whose targets are of spans of text.

    Args:
        teacher: the teacher. Its targets must be whole distributions.
        ours: the bytes of the student's tokens.
        theirs: the bytes of the teacher's tokens.
        kinds: the losses that read its targets.

    Raises:
        UserError: no token of the student is only its own, so that `shared_tokens` has no tail.
    """

    gives_whole_distributions = True
    vocabulary: int | None = None

    def __init__(self, teacher: TeacherBeside, ours: TokenBytes, theirs: TokenBytes, kinds: Collection[str]) -> None:
        self.teacher, self.ours, self.theirs = teacher, ours, theirs
        self._ends: tuple[Tensor, Tensor] | None = None
        self._begins = torch.from_numpy(ours.begins_word), torch.from_numpy(theirs.begins_word)
        self._compares_spans = "alm" in kinds
        shared = shared_tokens(ours, theirs) if {"uld", "shared_tokens"} & {*kinds} else None
        if "shared_tokens" in kinds and shared is not None:
            _check_shared(ours, theirs, shared)
        self._shared = None if shared is None else torch.tensor(shared, dtype=torch.int64).reshape(-1, 2).T

    def match_ends(self, ours: int, theirs: int | None) -> None:
        """Compare the ends of turns: the student's token that ends a turn is the teacher's.

        Args:
            ours: the id of the student's token.
            theirs: the id of the teacher's; None: no turn ends for both.
        """
        device = self._begins[0].device
        sizes, ids = (len(self.ours.each), len(self.theirs.each)), (ours, -1 if theirs is None else theirs)
        one, other = (torch.arange(size, device=device) == number for size, number in zip(sizes, ids, strict=True))
        self._ends = one, other
        if self._shared is not None and theirs is not None:
            self._shared = torch.cat([self._shared, torch.tensor([[ours], [theirs]], device=device)], 1)

    @property
    def config(self) -> Any:
        """The teacher's configuration."""
        return self.teacher.config

    @property
    def embeddings(self) -> int:
        """The number of ids that the teacher can read."""
        return self.teacher.embeddings

    @property
    def head(self) -> Any:
        """The teacher's head, where it has one."""
        return self.teacher.head

    def to(self, device: torch.device) -> None:
        """Give targets on this device."""
        self.teacher.to(device)
        self._move(device)

    def shard(self, device: torch.device) -> None:
        """Leave each rank its part of the teacher."""
        self.teacher.shard(device)
        self._move(device)

    def check_documents(self) -> None:
        """Refuse to read rows of several documents, if the teacher cannot keep them apart."""
        self.teacher.check_documents()

    def collator(self, collate: Collate, field: str = "text") -> TextCollator:
        """A collator that adds what this teacher reads to the batches of another, whatever column has their text."""
        return TextCollator(collate, self.ours, self.theirs, self.longest)

    def turns(self, collate: Collate, number: int) -> TurnsCollator:
        """The same of samples that are turns or answers.

        Args:
            collate: the other collator.
            number: the teacher's place in the columns of a sample.
        """
        return TurnsCollator(collate, self.ours, self.theirs, number)

    @property
    def longest(self) -> int | None:
        """The greatest number of tokens that the teacher reads; None: no limit."""
        return positions_of(self.config.get_text_config())

    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0, compile: bool = False) -> SpanTarget:
        """What the teacher says of the spans of a batch, whose columns are those of :class:`TextCollator`, without
        their prefix."""
        return self.read(batch, (), temperature, compile)[0]

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[SpanTarget]:
        """:meth:`target` of each batch."""
        return (self.target(batch) for batch in batches)

    @torch.no_grad()
    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0, compile: bool = False
    ) -> tuple[SpanTarget, LayerStates]:
        """:meth:`target`. No layers: they are of other tokens than the student's.

        Args:
            batch: what the teacher reads.
            layers: none.
            temperature: of no use to spans.
            compile: whether to fuse the passes over the teacher's vocabulary.
        """
        assert not layers, "`across_tokenizers` refuses hidden_match"
        whole = self.teacher.target({name: value for name, value in batch.items() if name not in (SPANS, SAME_BYTE)})
        assert isinstance(whole, HiddenTarget | LogitsTarget)
        spans, same = batch[SPANS] if self._compares_spans else batch[SPANS][:0], batch[SAME_BYTE]
        ours, begins = self._begins
        theirs, opens, follows = spans[:, 2:4], spans[:, 4].bool(), spans[:, 5].bool()
        labels, ends, closes = supervised_labels(batch), None, None
        labels = labels if self._compares_spans else labels[:0]
        if self._ends is not None:
            ends = self._ends[1]
            closes = ends[labels[theirs[:, 1]]]
        groups = joined(theirs, opens, follows, numbers_of(whole, labels, begins, ends, compile), closes)
        pairs = None
        if self._shared is not None:
            is_paired = same != NOWHERE
            pairs = PairedRows(_rows_at(whole, same[is_paired]), is_paired, *self._shared)
        target = SpanTarget(spans[:, :2], opens, *groups, begins_word=ours, tokens=len(same), pairs=pairs)
        return target if self._ends is None else replace(target, ends_turn=self._ends[0]), {}

    def _move(self, device: torch.device) -> None:
        ours, theirs = self._begins
        self._begins = ours.to(device), theirs.to(device)
        self._shared = None if self._shared is None else self._shared.to(device)
        self._ends = None if self._ends is None else (self._ends[0].to(device), self._ends[1].to(device))


def across_tokenizers(
    teachers: list[TeacherBeside | TargetStore],
    names: tuple[str, ...] | None,
    losses: Sequence[Loss | HiddenLoss],
    tokenizer: Any,
    given: Any,
    mix: str = "probabilities",
) -> list[TeacherBeside | TargetStore]:
    """The teachers, as losses across tokenizers need them; as they are, if there is no such loss.

    Each of several teachers is aligned by itself. One of them may have the student's own tokenizer.

    Args:
        teachers: the teachers.
        names: their names, if each teaches only the rows that name it.
        losses: all losses.
        tokenizer: the student's tokenizer, or None.
        given: the tokenizer of the teachers, or a list with one for each, or None.
        mix: how several teachers are mixed.

    Raises:
        UserError: the losses, or what teaches, cannot be across tokenizers.
    """
    crossing = next((loss.kind for loss in losses if isinstance(loss, Loss) and loss.crosses_tokenizers), None)
    if crossing is None or not teachers:
        return teachers
    for other in losses:
        if isinstance(other, HiddenLoss) or (other.needs_teacher and not other.crosses_tokenizers):
            raise UserError(
                f"{crossing} is for a teacher of another tokenizer, and {other.kind} compares token by token, which "
                f"needs one tokenizer; leave one of the two out, or use alm in the place of {other.kind}"
            )
    kinds, stores = [loss.kind for loss in losses], [one for one in teachers if isinstance(one, TargetStore)]
    for store in stores:
        check_spans(store, kinds)
    tokenizers = list(given) if isinstance(given, list | tuple) else [given] * len(teachers)
    if len(tokenizers) != len(teachers):
        raise UserError(f"`teacher_tokenizer` has {len(tokenizers)} tokenizers for {len(teachers)} teachers")
    if mix == "logits" and len(teachers) > 1:
        raise UserError(f"{crossing} averages the losses of teachers, whose tokens differ; leave `mix` out")
    known = [own for own, one in zip(tokenizers, teachers, strict=True) if not isinstance(one, TargetStore)]
    if tokenizer is None or None in known:
        missing = "processing_class" if tokenizer is None else "teacher_tokenizer"
        raise UserError(f"{crossing} reads the text of both models; give `{missing}`")
    shown = names or ([str(number) for number in range(len(teachers))] if len(teachers) > 1 else [""])
    called = [f"the teacher {name}".strip() for name in shown]
    # A store says which tokenizer it has.
    if all(captured_alike(one, tokenizer) for one in stores):
        live = zip(called, tokenizers, teachers, strict=True)
        named = {name: own for name, own, one in live if not isinstance(one, TargetStore)}
        check_other_tokens(crossing, tokenizer, {**{str(one.path): tokenizer for one in stores}, **named})
    ours = TokenBytes(tokenizer, "the student")
    return [
        captured_spans(teacher, ours, None if own is None else TokenBytes(own, name))
        if isinstance(teacher, TargetStore)
        else TeacherAcross(_whole(crossing, teacher), ours, TokenBytes(own, name), kinds)
        for teacher, own, name in zip(teachers, tokenizers, called, strict=True)
    ]


def _whole(crossing: str, teacher: TeacherBeside | TargetStore) -> TeacherBeside:
    """A teacher that tells its whole distributions of any text."""
    assert not isinstance(teacher, TargetStore), "captured spans are read by `CapturedSpans`"
    if not teacher.gives_whole_distributions:
        raise UserError(
            f"{crossing} needs a teacher that tells its whole distributions, and this one is behind a server that "
            "tells some tokens; let it run beside the student, or behind `potstill serve`"
        )
    return teacher


def shared_tokens(ours: TokenBytes, theirs: TokenBytes) -> list[tuple[int, int]]:
    """The ids of the tokens that are the same bytes in two vocabularies, in the order of the first.

    Of several tokens of the same bytes, as sentencepiece's byte tokens are, the last is taken: the one that a tokenizer
    itself would take.
    """
    one, other = ({content: number for number, content in enumerate(each.each) if content} for each in (ours, theirs))
    return sorted((number, other[content]) for content, number in one.items() if content in other)


def _check_shared(ours: TokenBytes, theirs: TokenBytes, shared: Sequence[tuple[int, int]]) -> None:
    texts = sum(map(bool, ours.each))
    if not shared:
        raise UserError(f"shared_tokens: {ours.name} and {theirs.name} have no token of the same bytes; use alm")
    if len({ours.each[number] for number, _ in shared}) == len({one for one in ours.each if one}):
        raise UserError(
            f"shared_tokens: all {texts:,} tokens of {ours.name} are tokens of {theirs.name}, so there is no other "
            "token to which the student could give the mass of the teacher's other tokens; use alm"
        )


def _rows_at(whole: HiddenTarget | LogitsTarget, rows: Tensor) -> HiddenTarget | LogitsTarget:
    if isinstance(whole, HiddenTarget):
        return HiddenTarget(whole.hidden.index_select(0, rows), whole.head)
    return LogitsTarget(whole.logits.index_select(0, rows))
