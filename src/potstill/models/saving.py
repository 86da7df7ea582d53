"""Saving: whether a model can be written as a Hugging Face folder, found out before a training spends anything."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import GenerationConfig
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from potstill.errors import UserError, first_line

logger = logging.getLogger(__name__)

_warned: set[str] = set()


def mend_generation_config(model: Any, what: str) -> None:
    """Drop the generation settings of a model that change nothing, and for which transformers refuses to save it.

    Such as `temperature` without `do_sample: true`: it is ignored in generation. A warning names what was dropped.

    Args:
        model: the model, which is changed.
        what: its name in messages.

    Raises:
        UserError: the settings contradict each other in another way.
    """
    config = getattr(model, "generation_config", None)
    if not isinstance(config, GenerationConfig):
        return
    ignored = re.findall(r"^- `(\w+)`", _complaint(config), re.MULTILINE)
    for name in ignored:
        setattr(config, name, getattr(GenerationConfig(), name))
    if ignored and what not in _warned:
        _warned.add(what)
        logger.warning(
            "%s: the generation settings %s change nothing without the settings that they need, such as `do_sample: "
            "true`; they are left out, because no model can be saved with them",
            what,
            ", ".join(f"`{name}`" for name in ignored),
        )
    if wrong := _complaint(config):
        raise UserError(
            f"{what} could not be saved: its generation settings contradict each other "
            f"({wrong.splitlines()[0]}); correct its generation_config.json"
        )


def stop_at(model: Any, token: int) -> None:
    """Let whoever generates with a model stop at this token too, such as the one that ends a turn of a chat.

    Args:
        model: the model, whose generation settings are changed.
        token: the id of the token.
    """
    given = model.generation_config.eos_token_id
    ends = [] if given is None else [given] if isinstance(given, int) else list(given)
    if token not in ends:
        model.generation_config.eos_token_id = [*ends, token]


def check_can_be_saved(model: Any, what: str) -> None:
    """Refuse a model that transformers will not save; nothing of its weights is written.

    Args:
        model: the model, with an adapter or not. Its generation settings are mended (:func:`mend_generation_config`).
        what: its name in messages.

    Raises:
        UserError: its settings, its quantisation or its shared weights cannot be saved.
    """
    mend_generation_config(model, what)
    with_adapter = hasattr(model, "peft_config")
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not with_adapter and not quantizer.is_serializable():
        method = quantizer.quantization_config.quant_method
        raise UserError(
            f"{what} is quantised by {getattr(method, 'value', method)}, which cannot be saved; train an adapter "
            "on it, or a model that is not quantised"
        )
    try:
        with TemporaryDirectory() as folder:
            model.config.save_pretrained(Path(folder))
        if not with_adapter and quantizer is None:
            # Under DeepSpeed's third stage, weights are empty here.
            weights = {name: weight for name, weight in model.state_dict().items() if weight.numel()}
            remove_tied_weights_from_state_dict(weights, model)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} could not be saved: {first_line(error)}") from error


@contextmanager
def names_in_memory(model: Any) -> Iterator[None]:
    """While this is open, `save_pretrained` writes the weights as `load_state_dict` takes them.

    transformers writes the weights of some families under published names, such as the head of GPT-NeoX, or in
    published parts, such as the experts of a mixture. Its Trainer does not turn them back when it loads a checkpoint:
    it warns, and keeps the weights that the model had before. An adapter has the same names in both places.
    """
    if hasattr(model, "peft_config"):
        yield
        return
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        # The class's own method is visible again.
        del model.save_pretrained


def _complaint(config: GenerationConfig) -> str:
    """The reason for which transformers refuses to save the settings; empty if it does not."""
    try:
        config.validate(strict=True)
    except (ValueError, TypeError) as error:
        return str(error) or type(error).__name__
    return ""
