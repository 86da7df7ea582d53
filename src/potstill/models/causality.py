"""Causality: the proof that a model is a causal language model, by what it does with two inputs.

A name proves nothing: transformers loads a BERT, whose every position reads all others, as a causal language model. So
each model is run twice, on inputs that differ only in their second half. A causal model gives equal logits for the
first half.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from potstill.device import device as own_device
from potstill.errors import UserError, first_line, is_out_of_memory

_PROBE_TOKENS = 8
_EXACT, _ROUGH = 1e-4, 0.1
"""The greatest change of the first half, as a share of the change of the second. In a plain model, no number of the
first half depends on the second, so that both runs round alike. In a quantised model and in a mixture of experts, the
tokens of a batch share scales or matrix products, and rounding differs."""

_proven: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def check_causal(model: nn.Module, what: str) -> None:
    """Refuse a model that is not a causal language model: token ids in, logits [B, T, V] out, and no look ahead.

    A model that was proven is not run again. The random state stays unchanged.

    Args:
        model: a model with its weights, on the device where it runs.
        what: its name in messages, such as "`teachers.big.model`".

    Raises:
        UserError: it is an encoder-decoder, has no head over the vocabulary, takes no token ids, or looks ahead.
    """
    if model in _proven:
        return
    reason = _reason_against(model)
    if reason is not None:
        kind = type(getattr(model, "get_base_model", lambda: model)()).__name__
        raise UserError(f"{what} is not a causal language model: the {kind} {reason}; name one that is")
    _proven.add(model)


def input_device(model: Any) -> torch.device:
    """The device on which a model takes its inputs; for a model that spans devices, that of its embeddings."""
    if not getattr(model, "hf_device_map", None):
        return model.device
    found = model.get_input_embeddings().weight.device
    return own_device() if found.type == "meta" else found


def _reason_against(model: Any) -> str | None:
    """Why a model is not a causal language model, in words that follow its name; None if it is one."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    if getattr(model.config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    vocabulary = getattr(config, "vocab_size", None)
    if not vocabulary:
        return "reads no tokens (its configuration has no `vocab_size`)"
    positions = getattr(config, "max_position_embeddings", None)
    # Some models without a limit say so by -1.
    length = min(_PROBE_TOKENS, positions) if positions and positions > 0 else _PROBE_TOKENS
    half = length // 2
    ids = torch.arange(length, device=input_device(model))[None] % vocabulary
    others = ids.clone()
    others[:, half:] = (ids[:, half:] + (vocabulary + 1) // 2) % vocabulary
    try:
        with _evaluating(model):
            one, other = _logits(model, ids), _logits(model, others)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return f"gives no logits for token ids ({first_line(error)})"
    if one is None or other is None:
        return "gives no logits"
    if one.ndim != 3 or one.shape[:2] != ids.shape or one.shape[2] < vocabulary:
        return f"gives logits of shape {list(one.shape)}, not one for each of {vocabulary:,} tokens at each position"
    if one.isnan().any():
        return "gives logits that are not numbers (its weights are damaged)"
    change = (one.double() - other.double()).square().mean(-1).sqrt()[0]
    before, after = change[:half], change[half:]
    if before.numel() and before.max() > (_ROUGH if _is_rough(model, config) else _EXACT) * after.max():
        return "looks ahead (a later token changes the logits before it)"
    return None


def _logits(model: Any, ids: Int[Tensor, "1 T"]) -> Float[Tensor, "1 T V"] | None:
    return getattr(model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False), "logits", None)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients; every module's mode and the random state are as before afterwards.

    Modules of 8 bits of bitsandbytes keep the columns of outliers in 16 bits, and choose them by all tokens of a batch:
    later tokens change how earlier ones are rounded (arXiv:2208.07339). Here they keep none.
    """
    modes = [(module, module.training) for module in model.modules()]
    states: list[Any] = [getattr(module, "state", None) for module in model.modules()]
    states = [state for state in states if hasattr(state, "threshold")]
    thresholds = [state.threshold for state in states]
    model.eval()
    for state in states:
        state.threshold = 0.0
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold


def _is_rough(model: Any, config: Any) -> bool:
    experts = any("expert" in name and isinstance(value, int) and value > 1 for name, value in vars(config).items())
    return experts or bool(getattr(model, "is_quantized", False))
