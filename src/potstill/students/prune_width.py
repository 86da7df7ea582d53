"""Width pruning: makes a student from some of its teacher's heads, neurons and channels of the residual stream.

Each layer keeps its own heads and neurons; all layers keep the same channels. The kept weights are the teacher's. Only
the norms change: over fewer channels, a norm divides by another number, so its weight and the epsilon of all norms are
scaled to correct this on average (`norm_ratios`). If all removed parts are dead (0; for a LayerNorm, the mean), the
correction is exact and the student computes the same as its teacher. Qwen3 is an exception: the norms of its heads use
the same epsilon, which therefore stays unchanged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from potstill.errors import UserError, first_line
from potstill.students.importance import (
    Batches,
    WidthImportance,
    most_important,
    norm_ratios,
    norms_of,
    width_importance,
)
from potstill.students.prune_width_families import FAMILIES, Axis, Family, Widths, family_of, place, widths_of


@dataclass(frozen=True)
class KeptUnits:
    """The kept channels, heads and neurons of a teacher, counted from 0, in rising order."""

    channels: list[int]
    heads: list[list[int]]
    """One list per layer, as for `key_value_heads` and `neurons`."""
    key_value_heads: list[list[int]]
    neurons: list[list[int]]
    shares: dict[str, float]
    """The kept share of the importance of all heads, neurons and channels, by their recipe keys."""


def pruned_widths(
    config: Any, heads: int | None, key_value_heads: int | None, intermediate_size: int | None, hidden_size: int | None
) -> Widths:
    """The widths of a student; a width that is None follows from the teacher's.

    Raises:
        UserError: a width is larger than the teacher's, or widths do not divide as they must.
    """
    whole, kind = widths_of(config), config.model_type
    given = {"heads": heads, "key_value_heads": key_value_heads}
    given |= {"intermediate_size": intermediate_size, "hidden_size": hidden_size}
    there = (whole.heads, whole.key_value_heads, whole.neurons, whole.hidden)
    for (key, wanted), most in zip(given.items(), there, strict=True):
        if wanted is not None and wanted > most:
            raise UserError(f"`student.{key}` is {wanted:,}, but the teacher has {most:,}; give less")
    family = FAMILIES[kind]
    if family.heads_fill_hidden:
        heads, hidden_size = _filled(whole, kind, heads or key_value_heads, hidden_size)
    heads, key_value_heads = _grouped(whole, heads, key_value_heads)
    hidden = hidden_size or whole.hidden
    if family.multiple_of_heads and hidden % heads:
        key = "heads" if hidden_size is None else "hidden_size"
        below = hidden - hidden % heads
        raise UserError(
            f"`student.{key}`: a {kind} of {heads} heads needs a hidden size that is a multiple of them, and it is "
            f"{hidden:,}; give `student.hidden_size: {below}`, or other heads"
        )
    return Widths(heads, key_value_heads, whole.head_dim, intermediate_size or whole.neurons, hidden)


def _filled(whole: Widths, kind: str, heads: int | None, hidden: int | None) -> tuple[int, int]:
    """Heads and hidden size of a family whose hidden size is heads times head dimension."""
    size = whole.head_dim
    if heads is None and hidden is None:
        return whole.heads, whole.hidden
    if hidden is not None and (hidden % size or (heads is not None and hidden != heads * size)):
        fits = heads * size if heads is not None else max(size, hidden - hidden % size)
        raise UserError(
            f"`student.hidden_size` is {hidden:,}, but it must be the heads of a {kind} times their {size} dimensions; "
            f"give {fits:,} for {fits // size} heads"
        )
    heads = heads or (hidden or whole.hidden) // size
    return heads, heads * size


def _grouped(whole: Widths, heads: int | None, key_value_heads: int | None) -> tuple[int, int]:
    """The numbers of query heads and of key-value heads; queries are cut in groups that share a key-value head."""
    if key_value_heads is None:
        heads = heads or whole.heads
        if heads % whole.group:
            raise UserError(
                f"`student.heads` is {heads}, but the teacher's heads share keys and values in groups of "
                f"{whole.group}; give a multiple of {whole.group}, or `student.key_value_heads` too"
            )
        return heads, heads // whole.group
    heads = heads or key_value_heads * whole.group
    if heads % key_value_heads:
        raise UserError(
            f"`student.heads` is {heads}, which is no multiple of `student.key_value_heads: {key_value_heads}`; "
            f"give a multiple of {key_value_heads}"
        )
    if heads > key_value_heads * whole.group:
        raise UserError(
            f"`student.heads` is {heads}, but only {whole.group} of the teacher's heads share each of "
            f"`student.key_value_heads: {key_value_heads}`; give at most {key_value_heads * whole.group}"
        )
    return heads, key_value_heads


def prune_width(teacher: PreTrainedModel, wanted: Widths, batches: Batches) -> tuple[PreTrainedModel, KeptUnits]:
    """A copy of the teacher with smaller widths that keeps its most important units; also returns these units.

    Args:
        teacher: in eval mode.
        wanted: from :func:`pruned_widths`.
        batches: the samples on which importance and the norms' divisors are measured.

    Raises:
        UserError: the teacher's architecture or a weight of it is unknown.
    """
    family, whole = family_of(teacher), widths_of(teacher.config)
    kept = _chosen(width_importance(teacher, family, whole, batches), whole, wanted)
    gains = dict.fromkeys(norms_of(teacher, family), 1.0)
    if wanted.hidden < whole.hidden:
        gains = norm_ratios(teacher, family, batches, kept.channels)
    weights: dict[str, Tensor] = {}
    for name, tensor in teacher.state_dict().items():
        at = place(family, name)
        for dimension, axis in enumerate(at.axes):
            if axis is not None:
                places = torch.tensor(_places(axis, at.layer, kept, whole), device=tensor.device)
                tensor = tensor.index_select(dimension, places)
        module, _, part = name.rpartition(".")
        # A norm's weight is scaled by the change of its divisor; its bias is added afterwards and stays.
        weights[name] = tensor * gains[module] if module in gains and part == "weight" else tensor
    return _model(teacher, family, wanted, weights, gains), kept


def _chosen(found: WidthImportance, whole: Widths, wanted: Widths) -> KeptUnits:
    heads, groups = [], []
    for figures in found.heads:
        # Each group keeps its best heads; the kept groups are those whose best heads are most important.
        of_groups = figures.unflatten(0, (whole.key_value_heads, whole.group)).tolist()
        best = [most_important(each, wanted.group) for each in of_groups]
        worth = [sum(each[head] for head in kept) for each, kept in zip(of_groups, best, strict=True)]
        groups.append(most_important(worth, wanted.key_value_heads))
        heads.append([group * whole.group + head for group in groups[-1] for head in best[group]])
    neurons = [most_important(figures, wanted.neurons) for figures in found.neurons.tolist()]
    channels = most_important(found.channels.tolist(), wanted.hidden)
    shares = {
        "heads": _share(found.heads, heads),
        "intermediate_size": _share(found.neurons, neurons),
        "hidden_size": _share(found.channels[None], [channels]),
    }
    return KeptUnits(channels, heads, groups, neurons, shares)


def _share(figures: Tensor, kept: Sequence[Sequence[int]]) -> float:
    parts = sum(float(row[list(places)].sum()) for row, places in zip(figures, kept, strict=True))
    return parts / (float(figures.sum()) or 1.0)


def _places(axis: Axis, layer: int | None, kept: KeptUnits, whole: Widths) -> list[int]:
    """The kept places along an axis."""
    if axis == "hidden":
        return kept.channels
    assert layer is not None, "only weights inside a layer have this axis"
    heads, size = kept.heads[layer], whole.head_dim
    match axis:
        case "neurons":
            return kept.neurons[layer]
        case "heads":
            return _whole_heads(heads, size)
        case "key_value_heads":
            return _whole_heads(kept.key_value_heads[layer], size)
        case "three_of_each":
            return _whole_heads(heads, 3 * size)
        case _:
            return [part * whole.heads * size + at for part in range(3) for at in _whole_heads(heads, size)]


def _whole_heads(heads: Sequence[int], size: int) -> list[int]:
    return [head * size + dimension for head in heads for dimension in range(size)]


def _model(
    teacher: PreTrainedModel, family: Family, wanted: Widths, weights: Mapping[str, Tensor], gains: Mapping[str, float]
) -> PreTrainedModel:
    fields = teacher.config.to_dict()
    fields[family.neurons] = wanted.neurons
    if family.epsilon is not None:
        # Squared, because epsilon is added to a mean of squares. All norms share one epsilon.
        fields[family.epsilon] *= sum(gain**2 for gain in gains.values()) / len(gains)
    # The configuration may have its own names for these fields.
    named = {"hidden_size": wanted.hidden, "num_attention_heads": wanted.heads}
    if not family.heads_fill_hidden:
        named |= {"num_key_value_heads": wanted.key_value_heads, "head_dim": wanted.head_dim}
    own = teacher.config.attribute_map
    fields |= {own.get(name, name): value for name, value in named.items()}
    try:
        student = AutoModelForCausalLM.from_config(teacher.config.__class__.from_dict(fields), dtype=teacher.dtype)
        student.load_state_dict(weights)
    except (RuntimeError, ValueError, StrictDataclassError) as error:
        kind = teacher.config.model_type
        raise UserError(
            f"`student.start`: transformers cannot make a {kind} of that width: {first_line(error)}"
        ) from error
    student.generation_config = teacher.generation_config
    return student
