"""Training arguments: a recipe's `training:` as `TrainingArguments`, with the fields that potstill sets itself."""

from copy import copy
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments

from potstill.device import device
from potstill.errors import UserError, first_line
from potstill.recipe.foreign_fields import check_fields

DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 1,
    "save_steps": 500,
    # The one before is resumed if the last one is damaged.
    "save_total_limit": 2,
    "dataloader_pin_memory": device().type != "cpu",
    "ddp_find_unused_parameters": False,
    "include_num_input_tokens_seen": "non_padding",
}
"""Values that a recipe may change."""


def training_arguments(training: dict[str, Any], key: str, output_dir: Path, seed: int) -> TrainingArguments:
    """Build `TrainingArguments`.

    Args:
        training: the recipe's fields.
        key: the key of these fields in the recipe, for messages.
        output_dir: the folder of checkpoints.
        seed: the seed of the samples' order and of every other random choice.

    Raises:
        UserError: a field is unknown, or transformers refuses or ignores a value.
    """
    check_fields(training, TrainingArguments, key)
    ours = {
        "output_dir": str(output_dir),
        "seed": seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "use_cpu": device().type == "cpu",
    }
    try:
        made = TrainingArguments(**(DEFAULTS | training | ours))
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`{key}`: transformers refuses it: {first_line(error)}") from error
    _check_optimizer(made, key)
    return made


def _check_optimizer(made: TrainingArguments, key: str) -> None:
    """Refuse an entry of `optim_args` (`momentum=0.9, nesterov=true`) that has no effect.

    Transformers reads only the names that it knows for each optimizer, and ignores all others without a message.
    """
    if not made.optim_args:
        return
    name, given = str(made.optim.value), made.optim_args.replace(" ", "").split(",")
    try:
        read = _optimizer(made, given)
        without = {one: _optimizer(made, [other for other in given if other != one]) for one in given}
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"`{key}.optim_args` is {made.optim_args!r}, which the optimizer {name!r} refuses ({first_line(error)}); "
            "write it as `name=value, name=value`"
        ) from error
    if vain := [one for one, others in without.items() if others == read]:
        raise UserError(
            f"`{key}.optim_args`: `{vain[0]}` changes nothing, because the optimizer {name!r} does not read it or has "
            "that value anyway; remove it"
        )


def _optimizer(made: TrainingArguments, given: list[str]) -> tuple[Any, dict[str, Any]]:
    """The optimizer's class and arguments, if `optim_args` were `given`."""
    twin = copy(made)
    twin.optim_args = ",".join(given)
    kind, arguments = Trainer.get_optimizer_cls_and_kwargs(twin)
    return kind, dict(arguments)
