"""A student and a teacher of different tokenizers, the text that both read, and the training steps of the pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.gold import Side
from benchmarks.models import Shape, make_model, our_loss
from benchmarks.problem import Problem
from benchmarks.variants import Variant
from potstill.data.collators import Collator
from potstill.data.positions import supervised_states
from potstill.data.prompts.collator import teacher_batch
from potstill.data.text_of_batch import TextCollator
from potstill.data.token_bytes import TokenBytes
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, SpanTarget
from potstill.models.head import Head
from potstill.models.head_extraction import head_of
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.live import LiveTeacher


@dataclass(frozen=True)
class Text:
    """Some texts, read by two tokenizers. Each row is `<s>`, a text and `</s>`."""

    ours: TokenBytes
    theirs: TokenBytes
    texts: Sequence[str]

    @cached_property
    def our_side(self) -> Side:
        """The student's rows."""
        return _side(self.ours, self.texts)

    @cached_property
    def their_side(self) -> Side:
        """The teacher's rows, as GOLD has them."""
        return _side(self.theirs, self.texts)

    def rows(self, first: int, last: int) -> "Text":
        """Some of the texts."""
        return replace(self, texts=self.texts[first:last])

    @property
    def longest(self) -> int:
        """The places of the longer side's rows."""
        return max(side.input_ids.shape[1] for side in (self.our_side, self.their_side))

    @cached_property
    def samples(self) -> list[dict[str, list[int]]]:
        """The student's rows as samples."""
        side = self.our_side
        return [{"input_ids": ids[: size + 2]} for ids, size in zip(side.input_ids.tolist(), side.sizes, strict=True)]


def _side(tokens: TokenBytes, texts: Sequence[str]) -> Side:
    tokenizer, read = tokens.tokenizer, tokens.read(texts)
    rows = [[tokenizer.bos_token_id, *one.ids.tolist(), tokenizer.eos_token_id] for one in read]
    batch = Collator(tokenizer.pad_token_id)([{"input_ids": row} for row in rows])
    ends = np.zeros((*batch["input_ids"].shape, 2), np.int64)
    for own, one in zip(ends, read, strict=True):
        size = len(one.ids)
        own[1 : size + 1, 1] = one.ends
        own[2 : size + 1, 0] = one.ends[:-1]
        own[size + 1] = one.ends[-1]
    return Side(batch["input_ids"], batch["attention_mask"], torch.from_numpy(ends), [len(one.ids) for one in read])


@dataclass(frozen=True, kw_only=True)
class CrossingProblem(Problem):
    """A problem whose teacher has rows, ids and a text of its own.

    ``teacher_hidden`` has a row for each token of the teacher's text and for the token at its end.
    """

    text: Text
    columns: Mapping[str, Tensor]
    """What ``TeacherAcross`` reads."""

    def in_fp64(self) -> "CrossingProblem":
        """The problem with the same numbers in float64, as leaves."""
        names = ("hidden", "weight", "teacher_hidden", "teacher_weight")
        exact = {name: getattr(self, name).detach().double() for name in names}
        return replace(self, autocast=False, **exact).fresh()  # type: ignore[return-value]

    def target_of(self, losses: Sequence[Loss], compile: bool = False) -> SpanTarget:
        """The teacher's target for our losses. The row of the token at a text's end is of no use to them."""
        sizes = self.text.their_side.sizes
        of_text = torch.cat([torch.arange(size + 1) < size for size in sizes]).to(self.teacher_hidden.device)
        given = _Given(HiddenTarget(self.teacher_hidden[of_text], Head(self.teacher_weight)))
        kinds = [loss.kind for loss in losses]
        across = TeacherAcross(given, self.text.ours, self.text.theirs, kinds)  # type: ignore[arg-type]
        return across.target(self.columns, compile=compile)

    def whole_logits(self) -> tuple[Float[Tensor, "B T V"], Float[Tensor, "B U W"]]:
        """The logits of both models at every place; 0 at the last and at pads."""
        sides = (
            (self.text.our_side, self.hidden @ self.weight.T),
            (
                self.text.their_side,
                (self.teacher_hidden @ self.teacher_weight.T).detach(),
            ),
        )
        return tuple(_at_places(side, logits) for side, logits in sides)  # type: ignore[return-value]


def _at_places(side: Side, logits: Float[Tensor, "N V"]) -> Float[Tensor, "B T V"]:
    rows, columns = (side.labels[:, 1:] >= 0).nonzero(as_tuple=True)
    return logits.new_zeros(*side.input_ids.shape, logits.shape[1]).index_put((rows, columns), logits)


@dataclass(frozen=True)
class _Given:
    """A teacher whose hidden states are given."""

    whole: HiddenTarget

    def target(self, batch: Mapping[str, Tensor]) -> HiddenTarget:
        """They, whatever it reads."""
        return self.whole


class CrossingPair:
    """A student that is trained (fp32 weights, bf16 by autocast) and a frozen teacher (bf16 weights) of one shape."""

    def __init__(
        self,
        shape: Shape,
        vocabularies: tuple[int, int],
        text: Text,
        dtype: torch.dtype,
        device: torch.device,
        longest: int = 0,
    ) -> None:
        torch.manual_seed(0)
        self.device, self.text, self.autocast = device, text, dtype == torch.bfloat16
        longest = max(longest, text.longest)
        ours, theirs = (replace(shape, vocabulary=size, length=longest) for size in vocabularies)
        self.student = make_model(ours.config(shape.student_layers)).to(device)
        self.teacher = make_model(theirs.config(shape.teacher_layers)).to(device, dtype).eval().requires_grad_(False)
        self.vocabularies, self.width, self.head = vocabularies, shape.width, head_of(self.student)
        self.live = LiveTeacher(self.teacher)
        self._across: dict[tuple[Loss, ...], TeacherAcross] = {}
        self._collators: dict[tuple[Loss, ...], TextCollator] = {}

    @property
    def title(self) -> str:
        """Number format and sizes, for the titles of tables."""
        ours, theirs = self.vocabularies
        dtype, tokens = "bf16" if self.autocast else "fp32", [sum(side.sizes) for side in self._sides]
        return f"{dtype}, V = {ours} and {theirs}, H = {self.width}, {tokens[0]} and {tokens[1]} tokens"

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self.text.our_side, self.text.their_side

    @cached_property
    def problem(self) -> CrossingProblem:
        """The inputs that a loss gets in a step of these models, to check variants on."""
        with torch.no_grad():
            return self._problem()

    def _problem(self) -> CrossingProblem:
        ours, theirs = self._sides
        with self.context():
            hidden, labels = self._body(self.student, ours)
        with torch.no_grad():
            teacher, _ = self._body(self.teacher, theirs)
        weights = self.student.lm_head.weight, self.teacher.lm_head.weight
        columns = teacher_batch(self.across((Loss("alm"),)).collator(Collator(0))(self.text.samples))
        return CrossingProblem(
            hidden, weights[0], teacher, weights[1], labels, self.autocast, text=self.text, columns=columns
        )

    def _body(self, model: Any, side: Side) -> tuple[Tensor, Tensor]:
        batch = {"input_ids": side.input_ids, "attention_mask": side.attention_mask, "labels": side.labels}
        batch = {name: value.to(self.device) for name, value in batch.items()}
        read = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return supervised_states(model.model(**read, use_cache=False).last_hidden_state, batch)

    def context(self) -> torch.autocast:
        """Autocast if the student is trained in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def across(self, losses: tuple[Loss, ...]) -> TeacherAcross:
        """The live teacher for some losses."""
        if losses not in self._across:
            kinds = [loss.kind for loss in losses]
            self._across[losses] = TeacherAcross(self.live, self.text.ours, self.text.theirs, kinds)
            self._across[losses].to(self.device)
            self._collators[losses] = self._across[losses].collator(Collator(0))
        return self._across[losses]

    def teacher_forward(self) -> object:
        """The forward of the teacher alone, with whole logits, as transformers computes them."""
        side = self.text.their_side
        with torch.no_grad():
            return self.teacher(
                input_ids=side.input_ids.to(self.device),
                attention_mask=side.attention_mask.to(self.device),
                use_cache=False,
            ).logits

    def ce_step(self, variant: Variant) -> None:
        """Forward and backward of the student alone."""
        self.student.zero_grad(set_to_none=True)
        with self.context():
            hidden, labels = self._body(self.student, self.text.our_side)
            weight = self.student.lm_head.weight
            loss = variant.loss(Problem(hidden, weight, hidden[:0].detach(), weight, labels, self.autocast))
        loss.backward()

    def peer_step(self, variant: Variant) -> None:
        """Forward and backward with a peer as heads and loss."""
        self.student.zero_grad(set_to_none=True)
        problem = self._problem()
        with self.context():
            loss = variant.loss(problem)
        loss.backward()

    def our_step(self, losses: tuple[Loss, ...], compile: bool = False) -> None:
        """Forward and backward as DistilTrainer does them, the collator included."""
        self.student.zero_grad(set_to_none=True)
        across = self.across(losses)
        batch = self._collators[losses](self.text.samples)
        batch = {name: value.to(self.device) for name, value in batch.items()}
        self.learn(losses, batch, across.target(teacher_batch(batch), compile=compile), compile)

    def learn(
        self, losses: tuple[Loss, ...], batch: Mapping[str, Tensor], target: SpanTarget | None, compile: bool
    ) -> None:
        """Forward and backward of the student with a batch, as DistilTrainer does them. Gradients are added."""
        with self.context():
            loss = our_loss(self.student, self.head, batch, target, losses, compile=compile)
        loss.backward()

    def hugging_face_step(self, batch: Mapping[str, Tensor]) -> None:
        """The same of transformers' own cross-entropy."""
        with self.context():
            loss = self.student(**batch, use_cache=False).loss
        loss.backward()
