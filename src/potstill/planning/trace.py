"""Trace: the operations and the memory of a model's passes, counted by running the model without any numbers.

PyTorch's fake tensors have shapes and no storage, so a model of any size is built and run in seconds. All that the real
pass would do is seen: each product, each temporary tensor, and each tensor that is kept for the backward, with
checkpointing and autocast as the training has them.
"""

import json
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from potstill.models.head_extraction import hidden_states, read_head
from potstill.students.adapters import with_adapter

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
SEEN_OF_SQUARE = 0.5
"""The share of T × T that a causal attention computes."""


@dataclass(frozen=True)
class Operations:
    """The work of a pass."""

    products: float = 0.0
    """Additions and multiplications of matrix products."""
    moved: float = 0.0
    """Bytes that all other operations read and write."""
    calls: float = 0.0
    """The number of operations."""
    attention: float = 0.0
    """Additions and multiplications of attention in forwards."""
    attention_backward: float = 0.0
    """The same in backwards."""

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Operations":
        return Operations(*(one * times for one in astuple(self)))


@dataclass(frozen=True)
class Pass:
    """One pass over a batch: its work, and the bytes that it needs beside the weights at its worst moment."""

    operations: Operations
    peak: int


@dataclass(frozen=True)
class BatchShape:
    """What a model reads at once."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """The number of tokens, padding included."""
        return self.rows * self.length


@dataclass(frozen=True)
class Learning:
    """How a student learns, as far as its memory and its work depend on it."""

    autocast: bool = False
    """Whether products are in bfloat16, of weights in float32."""
    checkpointing: bool = False
    """Whether the activations of each layer are computed again in the backward."""
    accumulates: bool = False
    """Whether gradients of an earlier micro-batch are there already."""
    adapter: str | None = None
    """The fields of `LoraConfig` as JSON."""
    beside: int = 0
    """Bytes of teachers' activations, which are there for a moment after the student's forward."""


class _Tracer(TorchDispatchMode):
    """Counts operations, and the bytes of tensors that are alive."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.products = self.moved = self.attention = self.attention_backward = 0.0
        self.calls = self.alive = self.peak = 0
        self._seen = set(known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace != "aten":
            return out
        for tensor in _tensors(out):
            self._see(tensor)
        if not func.is_view:
            self._count(func, args, kwargs or {}, out)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self.alive -= size

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        self.calls += 1
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.products += count(*args, **kwargs, out_val=out)
        elif ATTENTION in func.__name__ and "backward" in func.__name__:
            self.attention_backward += attention_backward(*(one.shape for one in args[:4]))
        elif ATTENTION in func.__name__:
            self.attention += attention_forward(*(one.shape for one in args[:3]))
        else:
            self.moved += sum(one.numel() * one.element_size() for one in (*_tensors(args), *_tensors(out)))

    @property
    def operations(self) -> Operations:
        return Operations(self.products, self.moved, self.calls, self.attention, self.attention_backward)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (one for one in tree_iter(tree) if isinstance(one, Tensor))


def attention_forward(query: torch.Size, key: torch.Size, value: torch.Size) -> float:
    """The additions and multiplications of a causal attention, whose tensors have these shapes."""
    return SEEN_OF_SQUARE * sdpa_flop_count(query, key, value)


def attention_backward(gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size) -> float:
    """The same of its backward."""
    return SEEN_OF_SQUARE * sdpa_backward_flop_count(gradient, query, key, value)


class _LossMemory(torch.autograd.Function):
    """The memory of `losses/chunked.py`: it makes the gradients of the states and of the head in its forward."""

    @staticmethod
    def forward(ctx, states, weight):  # type: ignore[no-untyped-def]
        ctx.of_states = torch.empty_like(states)
        ctx.of_weight = torch.empty_like(weight) if weight.requires_grad else None
        return states.new_zeros(())

    @staticmethod
    def backward(ctx, _):  # type: ignore[no-untyped-def]
        of_states, of_weight = ctx.of_states, ctx.of_weight
        ctx.of_states = ctx.of_weight = None
        return of_states, of_weight


def reading(config: Any, batch: BatchShape, dtype: str) -> Pass | None:
    """A forward without gradients up to the hidden states that go into the head. None if it cannot be traced."""
    return _reading(_plain(config), batch, dtype)


def training(config: Any, batch: BatchShape, how: Learning) -> Pass | None:
    """A forward and a backward of one micro-batch, without the logits of the loss. None if it cannot be traced.

    The peak has the gradients of the trained weights, but neither weights nor the optimizer's state.
    """
    return _training(_plain(config), batch, how)


def _plain(config: Any) -> str:
    return json.dumps(config.to_dict(), sort_keys=True, default=str)


@cache
def _reading(config: str, batch: BatchShape, dtype: str) -> Pass | None:
    def run(model: nn.Module) -> None:
        with torch.no_grad():
            hidden_states(model.eval(), input_ids=_ids(batch), use_cache=False)

    return _traced(config, DTYPES[dtype], run)


@cache
def _training(config: str, batch: BatchShape, how: Learning) -> Pass | None:
    def run(model: Any) -> None:
        if how.accumulates:
            for weight in model.parameters():
                weight.grad = torch.empty_like(weight) if weight.requires_grad else None
        with torch.autocast("cpu", torch.bfloat16, enabled=how.autocast):
            states, _ = hidden_states(model, input_ids=_ids(batch), use_cache=False)
        # Accelerate gives back float32.
        states = states.float().flatten(0, 1)
        torch.empty(how.beside, dtype=torch.uint8)
        head = read_head(model)
        _LossMemory.apply(states, states[:1] if head is None else head.weight).backward()

    dtype = torch.bfloat16 if how.autocast and how.adapter else torch.float32
    return _traced(config, dtype, run, lambda model: prepared(model, how))


def prepared(model: Any, how: Learning) -> Any:
    """A student that is ready to learn, as `training/fit.py` has it."""
    model = model.train()
    if how.adapter is not None:
        model = with_adapter(model, json.loads(how.adapter), seed=0)
    if how.checkpointing:
        if how.adapter is not None:
            model.enable_input_require_grads()
        model.activation_checkpointing_enable()
    return model


def _traced(
    config: str,
    dtype: torch.dtype,
    run: Callable[[Any], None],
    prepare: Callable[[Any], Any] = lambda model: model,
) -> Pass | None:
    try:
        with quiet():
            model = prepare(model_on_meta(config_of(json.loads(config)), dtype))
        with FakeTensorMode(), quiet():
            _make_fake(model)
            watch = _Tracer({one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())})
            with watch:
                run(model)
            return Pass(watch.operations, watch.peak)
    except Exception:  # noqa: BLE001 (a model whose forward depends on numbers; `estimates.py` estimates it)
        return None


def _make_fake(model: nn.Module) -> None:
    """Replace the weights of a model on the meta device by fake ones, which claim to be on the CPU."""
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        # Tied weights stay tied.
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
        return made[id(tensor)]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            own.update({name: fake(tensor) for name, tensor in own.items() if tensor is not None})  # type: ignore[misc]


def _ids(batch: BatchShape) -> Tensor:
    return torch.zeros(batch.rows, batch.length, dtype=torch.long)


def config_of(fields: Mapping[str, Any]) -> Any:
    """A configuration of transformers from its fields, with `model_type`."""
    return AutoConfig.for_model(**fields)


def model_on_meta(config: Any, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model without weights, to count its parameters."""
    with torch.device("meta"), quiet():
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' remarks about a model that nobody will run."""
    before, fake = transformers_logging.get_verbosity(), logging.getLogger("torch._subclasses.fake_tensor")
    transformers_logging.set_verbosity_error()
    was = fake.disabled
    fake.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        fake.disabled = was
        transformers_logging.set_verbosity(before)
