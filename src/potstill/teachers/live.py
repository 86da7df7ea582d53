"""Live teachers: models that run beside the student."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from potstill.device import device as own_device
from potstill.errors import UserError
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, TeacherTarget
from potstill.models.causality import check_causal, input_device
from potstill.models.document_attention import check_documents_are_isolated
from potstill.models.forward import LayerStates, forward_with_layers
from potstill.models.head import Head
from potstill.models.head_extraction import head_of, read_head
from potstill.models.sharding import gathered, shard_frozen
from potstill.models.size import embeddings_of
from potstill.teachers.llama_cpp import LlamaCppModel


class LiveTeacher:
    """A frozen model that reads the student's batch.

    A model that is quantised or spans several devices stays where it was loaded. Its targets are moved to the batch's
    device.

    Args:
        model: the teacher.
        vocabulary: its targets cover the ids from 0 to this number; default: all ids of its head. See
            ``models/shared_vocabulary.py``.

    Raises:
        UserError: the model is not a causal language model, or is sharded already.
    """

    gives_whole_distributions = True

    def __init__(self, model: PreTrainedModel | LlamaCppModel, vocabulary: int | None = None) -> None:
        if isinstance(model, FSDPModule):
            raise UserError("`teacher` is split among the ranks already, by an earlier trainer; load it again")
        check_causal(model, "`teacher`")
        self.model = model.eval().requires_grad_(False)
        self.vocabulary = vocabulary
        self._spans = bool(getattr(model, "hf_device_map", None))
        self._device = own_device()
        self._is_sharded = False
        self.head = self._head()

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def embeddings(self) -> int:
        """The number of the model's embeddings; by its configuration where they cannot be seen."""
        return embeddings_of(self.model)

    def check_documents(self) -> None:
        """Refuse to read rows of several documents, if the model cannot keep them apart.

        Raises:
            UserError: it cannot.
        """
        check_documents_are_isolated(self.model, "teacher")

    def to(self, device: torch.device) -> None:
        """Move the teacher; if it must stay in its place, move only the head, which the losses use."""
        if not self._spans and not getattr(self.model, "is_quantized", False):
            self.model.to(device)
        self._device = device
        self.head = self._head()

    def shard(self, device: torch.device) -> None:
        """Leave each rank its part of the teacher. From then on, all ranks must read their batches together."""
        shard_frozen(self.model, device)
        self._device, self._is_sharded = device, True

    @torch.no_grad()
    def target(self, batch: Mapping[str, Tensor], temperature: float = 1.0) -> TeacherTarget:
        """The teacher's targets for the batch's N supervised tokens, which are whole distributions at any temperature.

        ``batch`` holds `input_ids`, `labels` and, if rows are padded, `attention_mask`, all [B, T].
        """
        return self.read(batch, ())[0]

    def targets(self, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[TeacherTarget]:
        """:meth:`target` of each batch."""
        return (self.target(batch) for batch in batches)

    @torch.no_grad()
    def read(
        self, batch: Mapping[str, Tensor], layers: Collection[int], temperature: float = 1.0
    ) -> tuple[TeacherTarget, LayerStates]:
        """:meth:`target`, and the outputs of some of the teacher's layers for the same tokens, in one forward.

        Raises:
            UserError: layers are asked of llama.cpp, which does not show them.
        """
        if isinstance(self.model, LlamaCppModel):
            if layers:
                raise UserError("hidden_match needs the teacher's layers, and llama.cpp shows none; use transformers")
            return LogitsTarget(self.model.supervised_logits(batch)[:, : self.vocabulary]), {}
        here = batch["input_ids"].device
        if self._spans:
            batch = {name: value.to(input_device(self.model)) for name, value in batch.items()}
        outputs = forward_with_layers(self.model, self.head is not None, batch, layers)
        inner = {layer: found.to(here) for layer, found in outputs.layers.items()}
        if self.head is None:
            return LogitsTarget(outputs.states[:, : self.vocabulary].to(here)), inner
        head = self._gathered(self.head) if self._is_sharded else self.head
        return HiddenTarget(outputs.states.to(here), head), inner

    def _gathered(self, head: Head) -> Head:
        """The head for the losses of one batch: its parts, which have changed places, from all ranks."""
        own = read_head(self.model)
        assert own is not None
        bias = None if own.bias is None else gathered(own.bias)[: self.vocabulary]
        return replace(head, weight=gathered(own.weight)[: self.vocabulary], bias=bias)

    def _head(self) -> Head | None:
        head = self._whole_head()
        if head is not None and self._spans:
            bias = None if head.bias is None else head.bias.to(self._device)
            head = replace(head, weight=head.weight.to(self._device), bias=bias)
        if head is None or self.vocabulary is None:
            return head
        bias = None if head.bias is None else head.bias[: self.vocabulary]
        return replace(head, weight=head.weight[: self.vocabulary], bias=bias)

    def _whole_head(self) -> Head | None:
        if isinstance(self.model, LlamaCppModel):
            return None
        head = read_head(self.model)
        # An offloaded weight is empty between forwards, and a torchao weight is not a matrix that can be cut.
        if head is not None and (head.weight.is_meta or type(head.weight) not in (nn.Parameter, Tensor)):
            return None
        return head_of(self.model)
