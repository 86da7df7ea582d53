"""A student and a teacher of real shapes and few layers, and the training steps of the pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.problem import SPREAD, Problem
from benchmarks.variants import Variant
from potstill.data.positions import supervised_states
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import SparseTarget, TeacherTarget
from potstill.models.forward import forward
from potstill.models.head import Head
from potstill.models.head_extraction import head_of, read_head
from potstill.teachers.live import LiveTeacher
from potstill.training.memory import loss_budget


@dataclass(frozen=True)
class Shape:
    """Sizes of both models and of a batch. Default: layers of SmolLM2-135M's size."""

    vocabulary: int = 32000
    width: int = 576
    student_layers: int = 4
    teacher_layers: int = 8
    rows: int = 4
    length: int = 128

    def config(self, layers: int) -> LlamaConfig:
        """A Llama of these sizes, with a head of its own: a random tied head would only predict its own input."""
        heads = self.width // 64
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            # A third, as SmolLM2 has them, or the next fewer that divide the heads evenly.
            num_key_value_heads=next(few for few in range(max(1, heads // 3), 0, -1) if heads % few == 0),
            max_position_embeddings=self.length,
            tie_word_embeddings=False,
        )


class Pair:
    """A student that is trained (fp32 weights, bf16 by autocast) and a frozen teacher (bf16 weights)."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        torch.manual_seed(0)
        self.shape, self.device = shape, device
        self.autocast = dtype == torch.bfloat16
        with device:  # a CPU takes many seconds to draw the weights of a model for a GPU
            self.student = make_model(shape.config(shape.student_layers))
            teacher = make_model(shape.config(shape.teacher_layers))
        self.teacher = teacher.to(dtype).eval().requires_grad_(False)
        ids = torch.randint(0, shape.vocabulary, (shape.rows, shape.length)).to(device)
        self.batch = {"input_ids": ids, "labels": ids}
        self.head = head_of(self.student)
        self.live = LiveTeacher(self.teacher)

    @property
    def title(self) -> str:
        """Number format and sizes, for the titles of tables."""
        sizes = self.shape
        return (
            f"{'bf16' if self.autocast else 'fp32'}, V = {sizes.vocabulary}, H = {sizes.width}, "
            f"{sizes.rows} × {sizes.length} tokens"
        )

    @cached_property
    def problem(self) -> Problem:
        """The inputs that a loss gets in a step of these models, to check variants on."""
        with torch.no_grad():
            return self._problem(self.batch, None)

    def _body(self, model: LlamaForCausalLM, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        states = model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
        return supervised_states(states, batch)

    def _problem(self, batch: dict[str, Tensor], captured: SparseTarget | None, with_teacher: bool = True) -> Problem:
        with self.context():
            hidden, labels = self._body(self.student, batch)
        teacher = hidden[:0].detach()
        if captured is None and with_teacher:
            with torch.no_grad():
                teacher, _ = self._body(self.teacher, batch)
        weights = self.student.lm_head.weight, self.teacher.lm_head.weight
        return Problem(hidden, weights[0], teacher, weights[1], labels, self.autocast, captured)

    def captured_problem(self, batch: dict[str, Tensor], captured: SparseTarget) -> Problem:
        """The problem with captured targets in place of the teacher."""
        with torch.no_grad():
            return self._problem(batch, captured)

    def context(self) -> torch.autocast:
        """Autocast if the student is trained in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def teacher_forward(self) -> object:
        """The forward of the teacher alone, with whole logits, as transformers computes them."""
        with torch.no_grad():
            return self.teacher(input_ids=self.batch["input_ids"], use_cache=False).logits

    def hugging_face_step(self, batch: dict[str, Tensor]) -> None:
        """Forward and backward of transformers' own cross-entropy."""
        self.student.zero_grad(set_to_none=True)
        with self.context():
            loss = self.student(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
        loss.backward()

    def peer_step(self, variant: Variant, batch: dict[str, Tensor], captured: SparseTarget | None = None) -> None:
        """Forward and backward with a variant as heads and loss. The teacher does not run if targets are captured."""
        self.student.zero_grad(set_to_none=True)
        problem = self._problem(batch, captured, any(loss.needs_teacher for loss in variant.losses))
        with self.context():
            loss = variant.loss(problem)
        loss.backward()

    def our_step(
        self, losses: tuple[Loss, ...], compile: bool, batch: dict[str, Tensor], captured: SparseTarget | None = None
    ) -> None:
        """Forward and backward as DistilTrainer does them."""
        self.student.zero_grad(set_to_none=True)
        target: TeacherTarget | None = captured
        if captured is None and any(loss.needs_teacher for loss in losses):
            target = self.live.target(batch)
        with self.context():
            loss = our_loss(self.student, self.head, batch, target, losses, compile=compile)
        loss.backward()


def our_loss(
    student: LlamaForCausalLM,
    head: Head | None,
    batch: Mapping[str, Tensor],
    target: TeacherTarget | None,
    losses: Sequence[Loss],
    *,
    compile: bool = False,
) -> Tensor:
    """The forward of a student and its losses, as DistilTrainer computes them."""
    states, labels = forward(student, head, batch)
    own = read_head(student)
    assert own is not None
    denominator, budget = float(len(labels)), loss_budget(states.device, coming=0)
    loss, _ = distillation_loss(
        states, own, labels, target, losses, denominator=denominator, memory_budget=budget, compile=compile
    )
    return loss


def make_model(config: LlamaConfig) -> LlamaForCausalLM:
    """A random model whose logits spread as widely as a trained one's."""
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(SPREAD / (config.initializer_range * config.hidden_size**0.5))
    return model
