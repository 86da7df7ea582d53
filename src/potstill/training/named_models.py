"""Named models: students and teachers that are given by the name of a folder or of a model on the hub."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments, set_seed

from potstill.errors import UserError, first_line
from potstill.models.pretrained import ModelSource
from potstill.targets import TargetStore
from potstill.targets.header import NAME as STORE
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.hosted import HostedTeacher
from potstill.teachers.live import LiveTeacher
from potstill.teachers.llama_cpp import LlamaCppModel
from potstill.teachers.served import ServedTeacher

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CONFIGS = ("config.json", "adapter_config.json")


def names_of_teachers(given: Any) -> tuple[str, ...] | None:
    """The names of teachers that are given as a dictionary; None where they have none.

    Raises:
        UserError: there are no teachers in it, or a name is not text.
    """
    if not isinstance(given, Mapping):
        return None
    if not given or not all(isinstance(name, str) for name in given):
        raise UserError("`teacher` must have a text as the name of each teacher, as in `teacher={'maths': model}`")
    return tuple(given)


def teachers_in_order(given: Any, names: tuple[str, ...] | None) -> Any:
    """The teachers of written samples, in the order of ``names`` where these teachers have names.

    Raises:
        UserError: they are a dictionary with other names.
    """
    if not isinstance(given, Mapping):
        return given
    if names is None or set(given) != set(names):
        known = ", ".join(names or ()) or "none"
        raise UserError(
            f"`rollout_teacher` must have the names of `teacher` ({known}), not {', '.join(map(str, given))}"
        )
    return [given[name] for name in names]


def teachers_beside(student: Any, teacher: Any) -> list[TeacherBeside | TargetStore]:
    """The teachers of a student.

    Args:
        student: the student, or None if it is made later.
        teacher: None, one teacher, or a list or dictionary of them. Each is a model, a store of captured targets, the
            folder of either, or the name of a model on the hub.

    Raises:
        UserError: a teacher is none of these, cannot be loaded, or shares weights with the student.
    """
    if isinstance(teacher, Mapping):
        teacher = [*teacher.values()]
    given = [] if teacher is None else list(teacher) if isinstance(teacher, list | tuple) else [teacher]
    ours = {id(weight) for weight in student.parameters()} if isinstance(student, nn.Module) else set()
    for one in given:
        if isinstance(one, nn.Module) and any(id(weight) in ours for weight in one.parameters()):
            raise UserError(
                "a teacher is the student itself, or shares weights with it, and these would be frozen; give a copy "
                "(`copy.deepcopy`)"
            )
    return [_teacher(one) for one in given]


def _teacher(given: Any) -> TeacherBeside | TargetStore:
    if isinstance(given, str | Path):
        if (Path(given) / STORE).is_file():
            return TargetStore(given, expect=None)
        # A teacher is not trained, so it stays in the number format in which it was saved.
        return LiveTeacher(_load(str(given), "teacher", dtype="auto"))
    if isinstance(given, TargetStore | ServedTeacher | HostedTeacher):
        return given
    if isinstance(given, nn.Module | LlamaCppModel):
        _check_reads_tokens_alone(given, "teacher")
        return LiveTeacher(given)
    raise UserError(
        f"`teacher` has the type {type(given).__name__}; give a model, the folder or hub name of a model, a store of "
        "captured targets, or a list or dictionary of these"
    )


def named_student(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The arguments `model` and `processing_class` of a trainer, where `model` is a name; nothing where it is not.

    The model is loaded in float32, as TRL does: mixed precision keeps its weights in float32. Its tokenizer is loaded
    if none is given and if it lies beside the model.

    Raises:
        UserError: it is neither a model nor the name of one, cannot be loaded, or does not read tokens alone.
    """
    if not isinstance(model, str | Path):
        if not isinstance(model, nn.Module | None):
            raise UserError(f"`model` has the type {type(model).__name__}; give a model, or the folder or name of one")
        _check_reads_tokens_alone(model, "model")
        return {}
    loaded = _load(str(model), "model", dtype="float32")
    if tokenizer is None:
        with suppress(UserError):
            tokenizer = ModelSource(str(model), "`model`").tokenizer()
    return {"model": loaded, "processing_class": tokenizer}


def with_adapter_of(model: Any, config: Any, args: TrainingArguments | None) -> nn.Module:
    """Add the adapter of a `peft_config` to a model. Only the adapter's weights are trained and saved.

    Args:
        model: the model. It is changed and must not be used by itself any more.
        config: a configuration of peft.
        args: the training's arguments; their seed draws the adapter's weights.

    Raises:
        UserError: there is no model, it has an adapter already, or peft refuses the configuration.
    """
    from peft import PeftConfig, PeftModel, get_peft_model

    if not isinstance(config, PeftConfig):
        raise UserError(
            f"`peft_config` has the type {type(config).__name__}; give a configuration of peft, such as `LoraConfig`"
        )
    if model is None or isinstance(model, PeftModel):
        what = "there is no `model` to add it to" if model is None else "`model` has an adapter already"
        raise UserError(f"`peft_config` is given, but {what}; give a model without adapter, or leave `peft_config` out")
    set_seed(42 if args is None else args.seed)
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError, re.error) as error:
        raise UserError(f"`peft_config`: peft refuses it: {first_line(error)}") from error
    _check_reads_tokens_alone(adapted, "peft_config")
    if args is not None and args.gradient_checkpointing:
        # Reentrant gradient checkpointing gives no gradients if no input of a block needs one.
        adapted.enable_input_require_grads()
    return adapted


def _check_reads_tokens_alone(model: Any, key: str) -> None:
    """Refuse adapters that add learned tokens to the input: a position would not be that of its token."""
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        raise UserError(
            f"`{key}` has a {type(config).__name__}, which adds tokens to the input; give an adapter of the layers, "
            "such as `LoraConfig`"
        )


def _load(name: str, key: str, dtype: str) -> PreTrainedModel:
    folder = Path(name)
    is_folder = name != "" and folder.is_dir()
    if is_folder and not any((folder / config).is_file() for config in _CONFIGS):
        raise UserError(
            f"`{key}`: the folder {name} holds neither a model (config.json) nor captured targets ({STORE}); give "
            "another folder"
        )
    if not is_folder and not _HUB_NAME.fullmatch(name):
        raise UserError(f"`{key}`: there is no folder {name!r}, and no model on the hub has such a name; correct it")
    return ModelSource(name, f"`{key}`").model(dtype=dtype)
