"""Importance: what the layers, heads, neurons and channels of a model are worth on a few samples.

B samples, T tokens, H channels, A heads of D dimensions, F neurons, L layers. Tokens that are pads count nowhere.
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
from potstill.students.prune_width_families import Family, Shape, place

Batches = Sequence[Mapping[str, Tensor]]
"""`input_ids`, `attention_mask` and `labels`, all [B, T]."""


@dataclass(frozen=True)
class Activations:
    """The importance of each part of a model's width (Minitron, arXiv:2407.14679, section 2.2): of what it puts out,
    the mean absolute value over a sample's tokens (of heads: of the Euclidean norm), and the L2 norm of that over the
    samples."""

    heads: Float[Tensor, "L A"]
    neurons: Float[Tensor, "L F"]
    channels: Float[Tensor, "H"]
    """Of the outputs of the norms, which are all taken together."""


def mean_loss(model: PreTrainedModel, batches: Batches, vocabulary: int | None = None) -> tuple[float, int]:
    """Nats per supervised token, and how many those are.

    Args:
        model: in eval mode.
        batches: what it reads.
        vocabulary: look at the first so many ids only; default: all that the head has.
    """
    nll, tokens = score_answers(model, on_its_device(model, batches), vocabulary)
    return float(nll.sum() / tokens.sum()), int(tokens.sum())


@torch.no_grad()
def rises_in_loss(model: PreTrainedModel, batches: Batches, vocabulary: int | None = None) -> list[float]:
    """By how many nats per token the loss rises when a layer is left out, for each layer; below 0, it falls.

    Raises:
        UserError: the layers cannot be told apart.
    """
    layers, head, tokens = layers_of(model), head_of(model), 0
    sums = torch.zeros(len(layers), dtype=torch.float64)

    def loss(batch: Mapping[str, Tensor]) -> tuple[float, int]:
        states, labels = forward(model, head, batch)
        nll = score_tokens(states, head, labels, vocabulary=vocabulary)["nll"]
        return float(nll.double().sum()), len(nll)

    with progress("leaving out each layer", len(batches) * len(layers), "passes") as advance:
        for batch in on_its_device(model, batches):
            with _recorded(layers) as (given, made):
                whole, count = loss(batch)
            tokens += count
            for number in range(len(layers)):
                # What comes before the layer is as it was, and is not computed again.
                with _saying(layers, [*made[:number], given[number]]):
                    sums[number] += loss(batch)[0] - whole
                advance(1)
    return (sums / tokens).tolist()


@torch.no_grad()
def block_influence(model: PreTrainedModel, batches: Batches) -> list[float]:
    """1 - the cosine of what goes into a layer and what comes out of it, a mean over all tokens, for each layer
    (Block Influence of ShortGPT, arXiv:2403.03853, equation 1).

    Raises:
        UserError: the layers cannot be told apart.
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
    with _for_now(layer.register_forward_hook(watch(n), with_kwargs=True) for n, layer in enumerate(layers)):
        for batch in on_its_device(model, batches):
            real.append(batch["attention_mask"])
            tokens += int(real[-1].sum())
            _read(model, batch)
    return (sums / tokens).tolist()


def most_important(figures: Sequence[float], count: int) -> list[int]:
    """The places of the greatest figures, in rising order; of equal ones, the first."""
    ranked = sorted(range(len(figures)), key=lambda place: (-figures[place], place))
    return sorted(ranked[:count])


@torch.no_grad()
def activations(model: PreTrainedModel, family: Family, shape: Shape, batches: Batches) -> Activations:
    """Run the model over the samples and see what its heads, neurons and channels put out."""
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
    with _for_now(hooks):
        for batch in on_its_device(model, batches):
            real.append(batch["attention_mask"])
            _read(model, batch)
    return Activations(heads.sqrt(), neurons.sqrt(), channels.sqrt())


@torch.no_grad()
def spreads(model: PreTrainedModel, family: Family, batches: Batches, channels: Sequence[int]) -> dict[str, float]:
    """For each norm by its name: what it would divide by if it read only these channels, over what it does divide by, a
    mean over all tokens. (Root mean squares; a LayerNorm's are about the mean of the channels that it reads.)"""
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
    with _for_now(norm.register_forward_pre_hook(watch(name)) for name, norm in norms.items()):
        for batch in on_its_device(model, batches):
            real.append(batch["attention_mask"])
            _read(model, batch)
    return {name: float(total / count) for name, (total, count) in found.items()}


def norms_of(model: PreTrainedModel, family: Family) -> dict[str, nn.Module]:
    """The norms of the residual stream, by their names in the model."""
    return {name: module for name, module in model.named_modules() if place(family, name).name in family.norms}


def on_its_device(model: PreTrainedModel, batches: Batches) -> Iterator[dict[str, Tensor]]:
    """The batches, each where the model is."""
    return ({name: value.to(model.device) for name, value in batch.items()} for batch in batches)


@contextmanager
def _recorded(layers: nn.ModuleList) -> Iterator[tuple[list[Any], list[Any]]]:
    """What each layer makes, and what it would make if it handed on what it is given."""
    skipped: list[Any] = []
    whole: list[Any] = []

    def record(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
        states = _states(given, named)
        skipped.append((states, *made[1:]) if isinstance(made, tuple) else states)
        whole.append(made)

    with _for_now(layer.register_forward_hook(record, with_kwargs=True) for layer in layers):
        yield skipped, whole


@contextmanager
def _saying(layers: nn.ModuleList, outputs: Sequence[Any]) -> Iterator[None]:
    """The first layers say this, whatever they are given."""
    silenced: list[Any] = list(layers)[: len(outputs)]
    for layer, output in zip(silenced, outputs, strict=True):
        layer.forward = lambda *given, output=output, **named: output
    try:
        yield
    finally:
        for layer in silenced:
            del layer.forward


@contextmanager
def _for_now(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are gone again afterwards."""
    handles = list(hooks)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _states(given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    return given[0] if given else named["hidden_states"]


def _read(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
    """The decoder alone where there is one apart from the head: what it makes of a vocabulary is not looked at."""
    body = model.base_model
    body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
