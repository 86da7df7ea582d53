"""Head extraction: a model's last hidden states, and the ``Head`` that turns them into the model's own logits.

The step from hidden states to logits differs between families (a bias, a scale, a soft cap). It is read from the config
and then tested on the model's own forward. A head that does anything else is not extracted: losses then use the model's
own logits (``losses/chunked_logits.py``).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from potstill.models.head import Head, finish_logits

logger = logging.getLogger(__name__)

_PROBE_TOKENS = 8
# The allowed difference, relative to the greatest logit: twice the rounding of two products in a dtype.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_warned: set[str] = set()


def head_of(model: nn.Module) -> Head | None:
    """The head of a causal language model, wrapped (DDP, PEFT, compiled) or not; None where it cannot be extracted.

    Runs the model once on a few tokens and does not change the random state. ``read_head`` gives the head again without
    a run. For None it warns, once per class of model.
    """
    head = read_head(model)
    reason = "it is not one plain linear layer" if head is None else _disagreement(model, head)
    if reason is None:
        return head
    name = type(unwrapped(model)).__name__
    if name not in _warned:
        _warned.add(name)
        logger.warning("the head of %s is not taken apart, because %s: its own logits are used, whole", name, reason)
    return None


def read_head(model: nn.Module) -> Head | None:
    """The head by the modules and the config, untested. It looks the parameters up anew, as FSDP needs it."""
    inner = unwrapped(model)
    linear = _linear(inner)
    if linear is None:
        return None
    config = inner.config.get_text_config() if hasattr(inner.config, "get_text_config") else inner.config
    scale = getattr(config, "logit_scale", None) or 1.0
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    return Head(linear.weight, linear.bias, float(scale), getattr(config, "final_logit_softcapping", None))


def hidden_states(model: nn.Module, **inputs: Any) -> tuple[Float[Tensor, "B T H"], Any]:
    """The hidden states that go into the model's head, and the model's outputs, without their logits.

    It calls the model with its wrappers, so that DDP and FSDP do their work around a forward. The head is replaced by a
    function with one logit that depends on the head's parameters, so that DDP does not count them as unused.
    """
    head = _output_module(unwrapped(model))
    assert head is not None, "head_of says that this model's head cannot be extracted"
    seen: list[Tensor] = []

    def tap(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        # Looked up here: FSDP replaces its shards by the whole parameters during a forward.
        parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
        touched = [parameter.reshape(-1)[:1].sum() * 0 for parameter in parameters]
        return hidden[..., :1] * 0 + sum(touched)

    with _in_place_of(head, tap):
        outputs = model(**inputs)
    (hidden,) = seen
    return hidden, outputs


def unwrapped(model: nn.Module) -> Any:
    """The model within DDP and torch.compile; PEFT stays, which hands attributes through."""
    for name in ("module", "_orig_mod"):
        inner = model._modules.get(name)
        if inner is not None:
            return unwrapped(inner)
    return model


def _output_module(inner: Any) -> nn.Module | None:
    """The module that is called for the logits; a copy that PEFT trains in its place, where there is one."""
    module = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    return module if isinstance(module, nn.Module) else None


def _linear(inner: Any) -> nn.Linear | None:
    module: Any = _output_module(inner)
    if module is not None and hasattr(module, "modules_to_save"):
        active = module.active_adapters
        module = module.modules_to_save[active[0]] if len(active) == 1 else None
    # A subclass or a wrapper (LoRA, quantised) may compute more than weight and bias.
    return module if _class_of(module) is nn.Linear and module.weight.is_floating_point() else None


def _class_of(module: Any) -> type:
    """The module's class; under FSDP its class before, from which FSDP derives one."""
    from torch.distributed.fsdp import FSDPModule

    return type(module).__mro__[2] if isinstance(module, FSDPModule) else type(module)


@contextmanager
def _in_place_of(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace ``module.forward`` on the instance, as accelerate does, and restore it at the end."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@torch.no_grad()
def _disagreement(model: nn.Module, head: Head) -> str | None:
    """The difference between ``head`` and the model, in words; None where there is none.

    One forward tests both halves. The head's module is compared on the hidden states that reach it. It then returns
    logits large enough to show every scale and cap in the logits of the model.
    """
    inner = unwrapped(model)
    module = _output_module(inner)
    assert module is not None
    tokens = torch.arange(_PROBE_TOKENS, device=head.weight.device)[None] % len(head.weight)
    seen: list[tuple[Tensor, Tensor]] = []

    def probe(hidden: Tensor) -> Tensor:
        product = own(hidden)
        seen.append((hidden, product))
        return torch.linspace(-100, 100, product.numel(), device=product.device).view_as(product).to(product.dtype)

    own = module.forward
    devices = [head.weight.device] if head.weight.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _in_place_of(module, probe):
        outputs = inner(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    if len(seen) != 1:
        return f"its module was called {len(seen)} times in one forward"
    hidden, product = seen[0]
    if not _close(nn.functional.linear(hidden.to(head.weight), head.weight, head.bias), product):
        return "its module computes something else than weight and bias"
    given = torch.linspace(-100, 100, product.numel(), device=product.device).view_as(product).to(product.dtype)
    expected = finish_logits(given[0], None, head.scale, head.softcap)
    if outputs.logits.shape != product.shape or not _close(expected, outputs.logits[0]):
        return "the model does more to its logits than its config says"
    return None


def _close(expected: Tensor, found: Tensor) -> bool:
    difference = (expected.double() - found.double()).abs().max()
    return bool(difference <= _TOLERANCE[found.dtype] * expected.double().abs().max())
