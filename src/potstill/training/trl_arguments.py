"""TRL's arguments: what a script for TRL's SFTTrainer or GKDTrainer passes, and what to pass here in its place."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Trainer

from potstill.errors import UserError

PAGE = "docs/from-trl.md lists every argument"

_TRAINER = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]

_ELSEWHERE = {
    "teacher_model": "`teacher`",
    "teacher_model_name_or_path": "`teacher`",
    "tokenizer": "`processing_class`",
    "max_seq_length": "`max_length`",
    "formatting_func": "`train_dataset=dataset.map(lambda sample: {'text': formatting_func(sample)})`",
    "quantization_config": "`model`, loaded with it",
    "beta": "`losses=[Loss('jsd', beta=…)]`",
    "loss_type": "`losses`",
    "lmbda": "`on_policy=OnPolicy(share=…)`",
    "max_new_tokens": "`on_policy=OnPolicy(max_new_tokens=…)`",
    "max_completion_length": "`on_policy=OnPolicy(max_new_tokens=…)`",
}
"""Arguments that TRL's trainers take, and what takes their place."""

_IGNORED = {
    "packing": (False, "pack the samples first, with their number of tokens in a column `seq_lengths`"),
    "eval_packing": (None, "pack the samples first, with their number of tokens in a column `seq_lengths`"),
    "padding_free": (False, "leave it out"),
    "truncation_mode": ("keep_start", "cut the samples before"),
    "completion_only_loss": (None, "leave it out: of `prompt` and `completion`, the completion is learned"),
    "assistant_only_loss": (False, "leave it out: of conversations, only the assistant's turns are learned"),
    "loss_type": ("nll", "give `losses`"),
    "chat_template_path": (None, "set `tokenizer.chat_template`, or give `conversations={'template': PATH}`"),
    "eos_token": (None, "set `tokenizer.eos_token`"),
    "pad_token": (None, "set `tokenizer.pad_token`"),
    "model_init_kwargs": (None, "load the model with them and give it as `model`"),
    "dataset_kwargs": (None, "leave it out"),
    "activation_offloading": (False, "leave it out"),
    "router_aux_loss_coef": (None, "set it in the model's configuration"),
    "shuffle_dataset": (False, "shuffle the data set itself"),
}
"""Fields of `SFTConfig` that are not read: the value under which that changes nothing, and what to do otherwise."""


def trainer_arguments(positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`transformers.Trainer` by their names.

    Raises:
        UserError: there is no model, or an argument is not Trainer's; the message names the one that takes its place.
    """
    for name in named:
        if name in _TRAINER:
            continue
        near = difflib.get_close_matches(name, [*_TRAINER, "teacher", "losses", "temperature", "max_length"], n=1)
        place = _ELSEWHERE.get(name) or (f"`{near[0]}`" if near else None)
        hint = f"give {place}" if place else f"leave it out; {PAGE}"
        raise UserError(f"DistilTrainer has no argument `{name}`; {hint}")
    given = {**dict(zip(_TRAINER, positional, strict=False)), **named}
    if given.get("model") is None and given.get("model_init") is None:
        raise UserError("there is no student; give a model, or the folder or hub name of one, as `model`")
    return given


def check_arguments(args: Any) -> None:
    """Refuse arguments of a training with a field of TRL's that is set and that nothing would read.

    Raises:
        UserError: there is such a field, or the arguments are those of a distillation with TRL.
    """
    kind = type(args).__name__
    if hasattr(args, "lmbda") or hasattr(args, "teacher_model_name_or_path"):
        raise UserError(
            f"`args` is a {kind}, whose `beta`, `temperature` and other fields of distillation are not read; give "
            f"TrainingArguments or SFTConfig, and `teacher`, `losses` and `on_policy` to the trainer; {PAGE}"
        )
    for name, (nothing, instead) in _IGNORED.items():
        if getattr(args, name, nothing) != nothing:
            raise UserError(f"`args.{name}` is {getattr(args, name)!r} in your {kind}, which is not read; {instead}")
