"""Quantisation through transformers: any of its methods, checked before a teacher of many gigabytes is loaded."""

import difflib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    AUTO_QUANTIZER_MAPPING,
    AutoHfQuantizer,
    AutoQuantizationConfig,
)

from potstill.errors import UserError, first_line

EXTRA = ("bitsandbytes", "torchao")
"""The methods whose package (of the same name) `potstill[quantized]` installs."""

WIDTHS = ("load_in_4bit", "load_in_8bit")
METHODS = sorted(
    {name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZATION_CONFIG_MAPPING} - {"gguf"}
)
REFUSED = (ImportError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, AssertionError)
"""The errors of transformers and the packages below it at a configuration that they refuse."""


def quantization_config(given: Mapping[str, Any], key: str) -> Any:
    """The `quantization_config` for `from_pretrained`, checked to run on this machine.

    Args:
        given: transformers' fields by their own names, with `quant_method`. torchao's `quant_type` is the name of one
            of its configurations, `Int8WeightOnlyConfig`, or one with its fields,
            `{IntxWeightOnlyConfig: {weight_dtype: int6, granularity: {PerGroup: 32}}}`.
        key: their place in the recipe, for messages.

    Raises:
        UserError: the method or a field is unknown, a value is refused, or a package is missing.
    """
    method = given.get("quant_method")
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"`{key}.quant_method`: transformers has no method {method!r}{_hint(str(method), METHODS)}")
    name = _registered(method, given)
    kind = AUTO_QUANTIZATION_CONFIG_MAPPING[name]
    settings = {field: value for field, value in given.items() if field != "quant_method"}
    _check_names(settings, _parameters(kind), kind, key)
    if AUTO_QUANTIZER_MAPPING[name].requires_calibration:
        raise UserError(
            f"`{key}.quant_method`: {method} cannot quantise a model while it is loaded; name a checkpoint that is "
            "quantised already, and leave `quantization` out"
        )
    if method == "bitsandbytes" and [bool(given.get(width)) for width in WIDTHS].count(True) != 1:
        raise UserError(f"`{key}`: bitsandbytes needs one of `load_in_4bit: true` and `load_in_8bit: true`")
    check_installed(method, key)
    try:
        if method == "torchao" and "quant_type" in settings:
            settings["quant_type"] = _torchao_type(settings["quant_type"], f"{key}.quant_type")
        config = kind(**settings)
        AutoHfQuantizer.from_config(config, pre_quantized=False).validate_environment(device_map=None)
    except UserError:
        raise
    except REFUSED as error:
        raise UserError(f"`{key}`: transformers refuses it: {first_line(error)}") from error
    return config


def check_checkpoint(found: Any, key: str) -> None:
    """Refuse a checkpoint whose quantisation cannot run on this machine.

    Args:
        found: the `quantization_config` of its `config.json`.
        key: its place in the recipe, for messages.

    Raises:
        UserError: the method is unknown, or a package that it needs is missing.
    """
    given = found if isinstance(found, dict) else found.to_dict()
    method = given.get("quant_method", "bitsandbytes" if any(given.get(width) for width in WIDTHS) else None)
    if not isinstance(method, str) or method not in METHODS:
        raise UserError(f"`{key}`: it is quantised by {method!r}, a method that this transformers does not have")
    check_installed(method, key)
    try:
        config = AutoQuantizationConfig.from_dict(given)
        AutoHfQuantizer.from_config(config, pre_quantized=True).validate_environment(device_map=None)
    except REFUSED as error:
        raise UserError(f"`{key}` is quantised by {method}, which cannot run here: {first_line(error)}") from error


def _registered(method: str, given: Mapping[str, Any]) -> str:
    """The method's name in transformers' tables. bitsandbytes has two names there."""
    if method != "bitsandbytes":
        return method
    return "bitsandbytes_8bit" if given.get("load_in_8bit") else "bitsandbytes_4bit"


def check_installed(method: str, key: str) -> None:
    """Check that the package of a method of `potstill[quantized]` is there.

    Raises:
        UserError: it is not.
    """
    if method in EXTRA and importlib.util.find_spec(method) is None:
        raise UserError(f"`{key}` needs {method}, which is not installed here: pip install 'potstill[quantized]'")


def _parameters(kind: type) -> list[str]:
    """The fields of a configuration, with inherited fields. Nothing reads what `**kwargs` takes besides."""
    named = (inspect.signature(vars(base)["__init__"]).parameters for base in kind.__mro__ if "__init__" in vars(base))
    given = [name for parameters in named for name in parameters if name not in ("self", "args", "kwargs")]
    return sorted(set(given) - {"quant_method"})


def _torchao_type(given: Any, key: str) -> Any:
    from torchao import quantization
    from torchao.core.config import AOBaseConfig
    from torchao.quantization.granularity import Granularity

    kinds = {name: kind for name, kind in vars(quantization).items() if isinstance(kind, type)}
    configs = {
        name: kind for name, kind in kinds.items() if issubclass(kind, AOBaseConfig) and kind is not AOBaseConfig
    }
    granularities = {name: kind for name, kind in kinds.items() if issubclass(kind, Granularity)}
    name, settings = _named(given, configs, key)
    if not isinstance(settings, dict):
        raise UserError(f"`{key}.{name}` must be fields of torchao's {name}, not {settings!r}")
    kind = configs[name]
    _check_names(settings, [field.name for field in fields(kind) if field.init], kind, f"{key}.{name}")
    made = dict(settings)
    for field, value in settings.items():
        if field == "granularity":
            size, said = _named(value, granularities, f"{key}.{name}.{field}")
            made[field] = granularities[size](**said) if isinstance(said, dict) else granularities[size](said)
        elif field.endswith("dtype") and isinstance(getattr(torch, str(value), None), torch.dtype):
            made[field] = getattr(torch, value)
    return kind(**made)


def _named(given: Any, kinds: Mapping[str, type], key: str) -> tuple[str, Any]:
    """The name of one of torchao's classes, and its fields."""
    named = {given: {}} if isinstance(given, str) else given
    if not isinstance(named, dict) or len(named) != 1:
        raise UserError(f"`{key}` must be a name, such as {min(kinds)}, or one name with its fields")
    name, settings = next(iter(named.items()))
    if name not in kinds:
        raise UserError(f"`{key}`: torchao has no {name!r}{_hint(str(name), kinds)}")
    return name, {} if settings is None else settings


def _check_names(given: Mapping[str, Any], known: list[str], kind: type, key: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"`{key}.{name}`: {kind.__name__} has no such field{_hint(name, known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(known)}"


def quantization_of(config: Any) -> Any:
    """The quantisation that a checkpoint has by its configuration; None where it has none."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None)
