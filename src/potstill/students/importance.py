"""Importance of a model's layers, heads, neurons and channels, measured on a few samples.

B samples, T tokens, H channels, A heads of D dimensions, F neurons, L layers. Pads do not count anywhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from potstill.console import progress
from potstill.losses.token_scores import score_tokens
from potstill.metrics.held_out_text import score_answers
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.students.prune_layers import layers_of
from potstill.students.prune_width_families import Family, Widths, place

Batches = Sequence[Mapping[str, Tensor]]
"""`input_ids`, `attention_mask` and `labels`, all [B, T]."""


@dataclass(frozen=True)
class WidthImportance:
    """The importance of each head, neuron and channel (Minitron, arXiv:2407.14679, section 2.2).

    It is the mean absolute output over the tokens of a sample (for heads, the mean Euclidean norm), and then the L2
    norm of these means over the samples.
    """

    heads: Float[Tensor, "L A"]
    neurons: Float[Tensor, "L F"]
    channels: Float[Tensor, "H"]
    """The outputs of all norms of the residual stream, taken together."""


def mean_loss(model: PreTrainedModel, batches: Batches, vocabulary: int | None = None) -> tuple[float, int]:
    """The loss in nats per supervised token, and the number of supervised tokens.

    Args:
        model: in eval mode.
        batches: the batches that it reads.
        vocabulary: score only the first `vocabulary` ids; default: all ids of the head.
    """
    nll, tokens = score_answers(model, on_model_device(model, batches), vocabulary)
    return float(nll.sum() / tokens.sum()), int(tokens.sum())


@torch.no_grad()
def loss_increases(model: PreTrainedModel, batches: Batches, vocabulary: int | None = None) -> list[float]:
    """For each layer, the increase of the loss in nats per token when it is left out; negative if the loss falls.

    Raises:
        UserError: the model has no list of layers.
    """
    layers, head, tokens = layers_of(model), head_of(model), 0
    sums = torch.zeros(len(layers), dtype=torch.float64)

    def loss(batch: Mapping[str, Tensor]) -> tuple[float, int]:
        states, labels = forward(model, head, batch)
        nll = score_tokens(states, head, labels, vocabulary=vocabulary)["nll"]
        return float(nll.double().sum()), len(nll)

    def loss_without(number: int, batch: Mapping[str, Tensor], given: list[Any], made: list[Any]) -> float:
        # The outputs of the layers below are the same as before, and are not computed again.
        with _fixed_outputs(layers, [*made[:number], given[number]]):
            return loss(batch)[0]

    with progress("leaving out each layer", len(batches) * len(layers), "passes") as advance:
        for batch in on_model_device(model, batches):
            with _recorded_outputs(layers) as (given, made):
                whole, count = loss(batch)
            tokens += count
            for number in range(len(layers)):
                sums[number] += loss_without(number, batch, given, made) - whole
                advance(1)
    return (sums / tokens).tolist()


@torch.no_grad()
def block_influence(model: PreTrainedModel, batches: Batches) -> list[float]:
    """For each layer, 1 - the cosine between its input and its output, averaged over all tokens (Block Influence of
    ShortGPT, arXiv:2403.03853, equation 1).

    Raises:
        UserError: the model has no list of layers.
    """
    layers = layers_of(model)
    sums = torch.zeros(len(layers), dtype=torch.float64)
    real: list[Tensor] = []

    def watch(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
            before, after = _states(given, named), made[0] if isinstance(made, tuple) else made
            turned = 1 - cosine_similarity(before.double(), after.double(), dim=-1)
            sums[number] += (turned * real[-1]).sum().cpu()

        return hook

    tokens = 0
    with _temporary_hooks(layer.register_forward_hook(watch(n), with_kwargs=True) for n, layer in enumerate(layers)):
        for batch in on_model_device(model, batches):
            real.append(batch["attention_mask"])
            tokens += int(real[-1].sum())
            _read(model, batch)
    return (sums / tokens).tolist()


def most_important(figures: Sequence[float], count: int) -> list[int]:
    """The places of the `count` greatest figures, in rising order; among equal figures, the first."""
    ranked = sorted(range(len(figures)), key=lambda place: (-figures[place], place))
    return sorted(ranked[:count])


@torch.no_grad()
def width_importance(model: PreTrainedModel, family: Family, shape: Widths, batches: Batches) -> WidthImportance:
    """Measure the importance of heads, neurons and channels: run the model on the samples and record their outputs."""
    layers = layers_of(model)
    heads = torch.zeros(len(layers), shape.heads, dtype=torch.float64)
    neurons = torch.zeros(len(layers), shape.neurons, dtype=torch.float64)
    channels = torch.zeros(shape.hidden, dtype=torch.float64)
    real: list[Tensor] = []

    def add(to: Tensor, sizes: Tensor) -> None:
        weight = real[-1] / real[-1].sum(1, keepdim=True)
        to += torch.einsum("btx,bt->bx", sizes.double(), weight.double()).square().sum(0).cpu()

    def of_heads(number: int) -> Callable[..., None]:
        return lambda module, given: add(heads[number], given[0].unflatten(-1, (shape.heads, -1)).norm(dim=-1))

    def of_neurons(number: int) -> Callable[..., None]:
        return lambda module, given: add(neurons[number], given[0].abs())

    def of_channels(module: nn.Module, given: Any, made: Tensor) -> None:
        add(channels, made.abs())

    hooks = [norm.register_forward_hook(of_channels) for norm in norms_of(model, family).values()]
    for number, layer in enumerate(layers):
        hooks.append(layer.get_submodule(family.heads_into).register_forward_pre_hook(of_heads(number)))
        hooks.append(layer.get_submodule(family.neurons_into).register_forward_pre_hook(of_neurons(number)))
    with _temporary_hooks(hooks):
        for batch in on_model_device(model, batches):
            real.append(batch["attention_mask"])
            _read(model, batch)
    return WidthImportance(heads.sqrt(), neurons.sqrt(), channels.sqrt())


@torch.no_grad()
def norm_ratios(model: PreTrainedModel, family: Family, batches: Batches, channels: Sequence[int]) -> dict[str, float]:
    """For each norm, by name, the ratio of its divisor over only these channels to its divisor over all channels.

    The ratio is a mean over all tokens. A divisor is a root mean square; that of a LayerNorm is about the mean of the
    channels that it reads.
    """
    found = {name: torch.zeros(2, dtype=torch.float64) for name in norms_of(model, family)}
    real: list[Tensor] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            stream = given[0].double()
            part = stream[..., list(channels)]
            if isinstance(module, nn.LayerNorm):
                stream, part = stream - stream.mean(-1, keepdim=True), part - part.mean(-1, keepdim=True)
            whole, ours = (states.square().mean(-1).sqrt() for states in (stream, part))
            counted = (whole > 0) & (real[-1] > 0)
            found[name] += torch.stack([(ours[counted] / whole[counted]).sum(), counted.sum()]).cpu()

        return hook

    norms = norms_of(model, family)
    with _temporary_hooks(norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()):
        for batch in on_model_device(model, batches):
            real.append(batch["attention_mask"])
            _read(model, batch)
    return {name: float(total / count) for name, (total, count) in found.items()}


def norms_of(model: PreTrainedModel, family: Family) -> dict[str, nn.Module]:
    """The norms of the residual stream, by their names in the model."""
    return {name: module for name, module in model.named_modules() if place(family, name).name in family.norms}


def on_model_device(model: PreTrainedModel, batches: Batches) -> Iterator[dict[str, Tensor]]:
    """The batches, each moved to the model's device."""
    return ({name: value.to(model.device) for name, value in batch.items()} for batch in batches)


@contextmanager
def _recorded_outputs(layers: nn.ModuleList) -> Iterator[tuple[list[Any], list[Any]]]:
    """Record for each layer the output it would give if it passed on its input, and its real output."""
    skipped: list[Any] = []
    whole: list[Any] = []

    def record(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
        states = _states(given, named)
        skipped.append((states, *made[1:]) if isinstance(made, tuple) else states)
        whole.append(made)

    with _temporary_hooks(layer.register_forward_hook(record, with_kwargs=True) for layer in layers):
        yield skipped, whole


@contextmanager
def _fixed_outputs(layers: nn.ModuleList, outputs: Sequence[Any]) -> Iterator[None]:
    """Make the first layers return these outputs for any input."""
    silenced: list[Any] = list(layers)[: len(outputs)]
    for layer, output in zip(silenced, outputs, strict=True):
        layer.forward = lambda *given, output=output, **named: output
    try:
        yield
    finally:
        for layer in silenced:
            del layer.forward


@contextmanager
def _temporary_hooks(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for the block, and then remove them."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _states(given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    return given[0] if given else named["hidden_states"]


def _read(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
    """Run the model's body without its head if it has one, because logits are not needed."""
    body = model.base_model
    body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
