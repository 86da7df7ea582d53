"""Training arguments: a recipe's `training:` as `TrainingArguments`, with the fields that potstill sets itself."""

import difflib
import math
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from potstill.device import device
from potstill.errors import UserError, first_line
from potstill.recipe.training_fields import without_effect

DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 1,
    "save_steps": 500,
    # The one before is resumed if the last one is damaged.
    "save_total_limit": 2,
    "ddp_find_unused_parameters": False,
}
"""Values that a recipe may change, beside those of ``loader_defaults``."""

NAMES = {"lr_scheduler_type": SchedulerType, "optim": OptimizerNames}
"""Fields whose values are names that transformers knows."""

TYPICAL_STEPS = 1000
"""The assumed length of a training whose steps are counted later."""


def loader_defaults() -> dict[str, Any]:
    """How samples are read, where a recipe does not say it: on a GPU, beside the training and into pinned memory.

    On a CPU, workers would take its cores.
    """
    on_cpu = device().type == "cpu"
    return {"dataloader_pin_memory": not on_cpu, "dataloader_num_workers": 0 if on_cpu else 2}


def training_arguments(
    training: Mapping[str, Any], key: str, output_dir: Path, seed: int, keep: Literal["last", "best"] = "last"
) -> TrainingArguments:
    """Build `TrainingArguments`.

    Args:
        training: the recipe's fields.
        key: the key of these fields in the recipe, for messages.
        output_dir: the folder of checkpoints.
        seed: the seed of the samples' order and of every other random choice.
        keep: `best` measures the loss at every save, and loads the best saved weights at the end.

    Raises:
        UserError: transformers refuses a value, or a field does nothing beside the others.
    """
    for name, names in NAMES.items():
        _check_name(training.get(name), [one.value for one in names], f"{key}.{name}")
    chosen = _best_weights_arguments(training, key) if keep == "best" else {}
    if (vain := without_effect(training)) is not None:
        raise UserError(f"`{key}.{vain[0]}` has no effect, because it needs {vain[1]}; add that, or remove it")
    ours = {
        "output_dir": str(output_dir),
        "seed": seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "disable_tqdm": True,
        "use_cpu": device().type == "cpu",
    }
    try:
        return TrainingArguments(**(DEFAULTS | loader_defaults() | dict(training) | chosen | ours))
    except Exception as error:  # a file of settings may be missing, and other libraries take part
        raise UserError(f"`{key}`: transformers refuses it: {first_line(error)}") from error


def check_training(training: Mapping[str, Any], key: str, seed: int, keep: Literal["last", "best"] = "last") -> None:
    """Refuse, before anything is spent, whatever would stop a training at its first step on this machine.

    Args:
        training: as for :func:`training_arguments`, like the others.
        key: the key of these fields in the recipe.
        seed: the seed.
        keep: which weights are kept.

    Raises:
        UserError: a value is refused, a package is not installed, or the device cannot do it.
    """
    made = training_arguments(training, key, Path(), seed, keep)
    for tracker in made.report_to:
        _check_name(tracker, list(INTEGRATION_TO_CALLBACK), f"{key}.report_to")
        if tracker not in get_available_reporting_integrations():
            raise UserError(f"`{key}.report_to`: {tracker} is not installed here; install it, or remove `report_to`")
    if made.fp16 and device().type == "cpu":
        raise UserError(f"`{key}.fp16` needs an accelerator, and this machine has none; use `bf16`, or remove it")
    _check_optimizer(made, training, key)
    _check_schedule(made, key)
    if made.torch_compile:
        _check_compiler(made, key)


def _check_name(given: Any, names: list[str], key: str) -> None:
    if given is None or given in names:
        return
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(names)}"
    raise UserError(f"`{key}`: transformers has no {given!r}; {hint}")


def _best_weights_arguments(training: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The fields of `TrainingArguments` that load the best saved weights at the end."""
    strategy = training.get("save_strategy", "steps")
    if strategy not in ("steps", "epoch"):
        raise UserError(
            f"`{key}.save_strategy: {strategy}` saves nothing to choose from; leave it out, or do not `keep: best`"
        )
    return {
        "eval_strategy": strategy,
        "eval_steps": training.get("save_steps", DEFAULTS["save_steps"]),
        "per_device_eval_batch_size": training.get(
            "per_device_eval_batch_size", training.get("per_device_train_batch_size", 8)
        ),
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }


def _check_optimizer(made: TrainingArguments, training: Mapping[str, Any], key: str) -> None:
    """Take a step with the optimizer, and refuse fields that it does not read.

    Transformers reads only the entries of `optim_args` (`momentum=0.9, nesterov=true`) that it knows for each
    optimizer, and gives `adam_beta1` and its like only to some; it ignores all others without a message.
    """
    name, given = str(made.optim.value), [one for one in (made.optim_args or "").replace(" ", "").split(",") if one]
    weight = torch.nn.Parameter(torch.ones(1, device=device()))
    weight.grad = torch.ones_like(weight)
    try:
        kind, read = _optimizer(made)
        kind([weight], **read).step()
        without = {one: _optimizer(made, optim_args=",".join(set(given) - {one}))[1] for one in given}
        other = {one: _optimizer(made, **{one: 0.5})[1] for one in training if one.startswith("adam_")}
    except Exception as error:  # optimizers of many packages
        told = f"`{key}.optim_args` is {made.optim_args!r}, which" if given else f"`{key}.optim`:"
        remedy = "write it as `name=value, name=value`" if given else "choose another"
        raise UserError(f"{told} the optimizer {name!r} refuses ({first_line(error)}); {remedy}") from error
    if vain := [one for one, others in without.items() if others == read]:
        raise UserError(
            f"`{key}.optim_args`: `{vain[0]}` changes nothing, because the optimizer {name!r} does not read it or has "
            "that value anyway; remove it"
        )
    if vain := [one for one, others in other.items() if others == read and training[one] != 0.5]:
        raise UserError(f"`{key}.{vain[0]}` has no effect, because the optimizer {name!r} does not read it; remove it")


def _optimizer(made: TrainingArguments, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The optimizer's class and arguments, if some fields were others."""
    twin = copy(made)
    for name, value in changes.items():
        setattr(twin, name, value)
    kind, arguments = Trainer.get_optimizer_cls_and_kwargs(twin)
    return kind, dict(arguments)


def _check_schedule(made: TrainingArguments, key: str) -> None:
    """Refuse `lr_scheduler_kwargs` that the schedule does not take, or that give no finite learning rate."""
    steps = made.max_steps if made.max_steps > 0 else TYPICAL_STEPS
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=made.learning_rate)
    given = f"`{key}.lr_scheduler_kwargs` is {made.lr_scheduler_kwargs or {}}, which the schedule "
    given += f"{made.lr_scheduler_type.value!r}"
    try:
        schedule = get_scheduler(
            made.lr_scheduler_type,
            optimizer,
            num_warmup_steps=made.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=dict(made.lr_scheduler_kwargs or {}),
        )
        factors = [rate(step) for rate in getattr(schedule, "lr_lambdas", ()) for step in (0, steps // 2, steps)]
    except Exception as error:  # whatever a schedule does with numbers that are not for it
        raise UserError(f"{given} refuses ({first_line(error)}); see its documentation") from error
    if not all(isinstance(one, int | float) and math.isfinite(one) and one >= 0 for one in factors):
        raise UserError(f"{given} turns into learning rates of {factors} times the given one; correct it")


def _check_compiler(made: TrainingArguments, key: str) -> None:
    """Compile a product, as `torch_compile` compiles a model."""
    try:
        compiled = torch.compile(torch.square, backend=made.torch_compile_backend, mode=made.torch_compile_mode)
        compiled(torch.ones(2, device=device()))
    except Exception as error:  # compilers fail in many ways
        raise UserError(
            f"`{key}.torch_compile` does not work on this machine ({first_line(error)}); install what it needs, or "
            "remove it"
        ) from error
