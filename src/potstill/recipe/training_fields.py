"""Training fields: which fields of transformers' `TrainingArguments` a recipe may set, and which values they take.

Every field of the installed `TrainingArguments` is either in `TrainingFields` or in `REFUSED`; a test holds this.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WrapValidator
from typing_extensions import TypedDict

from potstill.recipe.section import about_key, whole, without_secrets

AtLeastOne = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""A factor of a running mean."""
Names = str | list[str]
LogLevel = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]


class AcceleratorFields(TypedDict, total=False):
    """Fields of accelerate's `AcceleratorConfig`. Its other fields decide which samples a rank reads, and when."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]
    non_blocking: bool
    use_seedable_sampler: bool


class TrainingFields(TypedDict, total=False):
    """The fields that a recipe may set, under transformers' own names."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")  # type: ignore[misc]
    # Length and batches. -1 steps is transformers' default, "as many as `num_train_epochs` has".
    max_steps: Literal[-1] | AtLeastOne
    num_train_epochs: Annotated[float, Field(gt=0, le=1e6)]
    per_device_train_batch_size: AtLeastOne
    gradient_accumulation_steps: AtLeastOne
    per_device_eval_batch_size: AtLeastOne
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"]
    # Optimizer and learning rate. transformers knows the names of optimizers and schedules.
    learning_rate: Positive
    lr_scheduler_type: str
    lr_scheduler_kwargs: dict[str, Any] | None
    warmup_steps: Annotated[int, Field(ge=0)] | Share
    optim: str
    optim_args: str | None
    optim_target_modules: Names | None
    weight_decay: NotNegative
    adam_beta1: Decay
    adam_beta2: Decay
    adam_epsilon: Positive
    max_grad_norm: NotNegative
    neftune_noise_alpha: Positive | None
    # Number formats, memory and speed.
    bf16: bool
    fp16: bool
    tf32: bool | None
    activation_checkpointing: bool | None
    activation_checkpointing_kwargs: dict[str, Any] | None
    gradient_checkpointing: bool | None
    gradient_checkpointing_kwargs: dict[str, Any] | None
    torch_compile: bool
    torch_compile_backend: str | None
    torch_compile_mode: str | None
    torch_empty_cache_steps: AtLeastOne | None
    full_determinism: bool
    debug: Literal["", "underflow_overflow"]
    # Log and trackers.
    logging_strategy: Literal["no", "steps", "epoch"]
    logging_steps: AtLeastOne | Share
    logging_first_step: bool
    log_level: LogLevel
    log_level_replica: LogLevel
    log_on_each_node: bool
    report_to: Names | None
    run_name: str | None
    project: str
    trackio_space_id: str | None
    trackio_bucket_id: str | None
    trackio_static_space_id: str | Literal[False] | None
    # Checkpoints.
    save_strategy: Literal["no", "steps", "epoch"]
    save_steps: AtLeastOne | Share
    save_total_limit: AtLeastOne | None
    save_on_each_node: bool
    # Reading of the samples. Each worker is a process.
    dataloader_num_workers: Annotated[int, Field(ge=0, le=256)]
    dataloader_drop_last: bool
    dataloader_pin_memory: bool
    dataloader_persistent_workers: bool
    dataloader_prefetch_factor: AtLeastOne | None
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None
    dataloader_in_order: bool
    accelerator_config: AcceleratorFields | None
    # Several processes.
    ddp_find_unused_parameters: bool | None
    ddp_bucket_cap_mb: AtLeastOne | None
    ddp_broadcast_buffers: bool | None
    ddp_static_graph: bool | None
    ddp_backend: str | None
    ddp_timeout: AtLeastOne
    deepspeed: dict[str, Any] | str | None


_LOSS = "the loss is `distil.losses`"
_SEEDS = "`seeds:` lists the seeds"
_AT_EVERY_SAVE = "`keep: best` measures at every save"
_CROSS_ENTROPY = "`keep: best` compares cross-entropy, which every training has"
_NO_METRICS = "a training measures its loss only, and `evaluate:` measures the models"
_GOES_ON = "a stopped run goes on by itself"
_STRATEGY = "`distributed: {strategy: fsdp2}` splits student and teachers among the ranks"
_SCRIPTS = "only transformers' own scripts read it"

REFUSED = {
    "output_dir": "the run folder holds everything",
    "seed": _SEEDS,
    "data_seed": _SEEDS,
    "label_smoothing_factor": _LOSS,
    "use_liger_kernel": _LOSS,
    "liger_kernel_config": _LOSS,
    "average_tokens_across_devices": "the loss is always divided by the supervised tokens of the whole step",
    "remove_unused_columns": "captured targets need all columns",
    "label_names": "the labels are always in the column `labels`",
    "length_column_name": "the samples have no such column",
    "logging_nan_inf_filter": "a loss that is not a number stops the run",
    "include_num_input_tokens_seen": "the report counts every token but padding",
    "resume_from_checkpoint": _GOES_ON,
    "restore_callback_states_from_checkpoint": _GOES_ON,
    "enable_jit_checkpoint": "a run that is told to stop saves a checkpoint first",
    "ignore_data_skip": "a stopped run must go on with the same samples",
    "auto_find_batch_size": "another batch size would give another result",
    "save_only_model": "a stopped run needs the optimizer's state to go on",
    "disable_tqdm": "potstill shows its own progress",
    "skip_memory_metrics": "potstill measures the cost of every step itself",
    "eval_strategy": _AT_EVERY_SAVE,
    "eval_steps": _AT_EVERY_SAVE,
    "eval_delay": _AT_EVERY_SAVE,
    "eval_on_start": _AT_EVERY_SAVE,
    "metric_for_best_model": _CROSS_ENTROPY,
    "greater_is_better": _CROSS_ENTROPY,
    "load_best_model_at_end": "`keep: best` does it, also for the control",
    "prediction_loss_only": _NO_METRICS,
    "eval_accumulation_steps": _NO_METRICS,
    "eval_do_concat_batches": _NO_METRICS,
    "eval_use_gather_object": _NO_METRICS,
    "include_for_metrics": _NO_METRICS,
    "batch_eval_metrics": _NO_METRICS,
    "bf16_full_eval": "a training is measured in its own number format",
    "fp16_full_eval": "a training is measured in its own number format",
    "use_cache": "a training keeps no keys and values",
    "use_cpu": "potstill uses the accelerator, or the CPU if there is none",
    "fsdp": _STRATEGY,
    "fsdp_config": _STRATEGY,
    "local_rank": "`torchrun` numbers the processes",
    "parallelism_config": "it is an object of Python, which a recipe cannot hold",
    "do_train": _SCRIPTS,
    "do_eval": _SCRIPTS,
    "do_predict": _SCRIPTS,
}
"""Fields of `TrainingArguments` that a recipe may not set, each with the reason."""

PUBLISHES = re.compile("push_to_hub|hub_")
"""How the fields of `TrainingArguments` begin that upload a model."""

WORKERS = "dataloader_num_workers"
CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
TRACKIO = ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")

# `save_strategy: no` on the command line switches off what a recipe says about saves, so it may stand beside it.
NEEDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    **{
        f"{name}_kwargs": ("`activation_checkpointing: true`", lambda it: any(it.get(one) for one in CHECKPOINTING))
        for name in CHECKPOINTING
    },
    "torch_compile_backend": ("`torch_compile: true`", lambda it: bool(it.get("torch_compile"))),
    "torch_compile_mode": ("`torch_compile: true`", lambda it: bool(it.get("torch_compile"))),
    "logging_steps": ("`logging_strategy: steps`", lambda it: it.get("logging_strategy") != "epoch"),
    "save_steps": ("`save_strategy: steps`", lambda it: it.get("save_strategy") != "epoch"),
    "run_name": ("a tracker in `report_to`", lambda it: bool(trackers_of(it))),
    **{name: ("`report_to: trackio`", lambda it: bool({"trackio", "all"} & {*trackers_of(it)})) for name in TRACKIO},
    "dataloader_persistent_workers": (f"`{WORKERS}` above 0", lambda it: bool(it.get(WORKERS))),
    "dataloader_prefetch_factor": (f"`{WORKERS}` above 0", lambda it: bool(it.get(WORKERS))),
    "dataloader_multiprocessing_context": (f"`{WORKERS}` above 0", lambda it: bool(it.get(WORKERS))),
    "warmup_steps": (
        "another `lr_scheduler_type`, such as `constant_with_warmup`",
        lambda it: it.get("lr_scheduler_type") != "constant",
    ),
}
"""Fields that do nothing without another one: what they need, and whether the other fields have it."""


def without_effect(training: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first field that does nothing beside the others, and what it needs; None if all of them do something."""
    for name, (needed, has) in NEEDS.items():
        if training.get(name) and not has(training):
            return name, needed
    return None


def trackers_of(training: Mapping[str, Any]) -> list[str]:
    """The trackers that a training logs to, as `report_to` names them."""
    given = training.get("report_to") or []
    return [one for one in ([given] if isinstance(given, str) else given) if one != "none"]


def _known_fields(training: Any) -> Any:
    for key in training if isinstance(training, dict) else ():
        if PUBLISHES.match(str(key)):
            raise about_key(
                key,
                "uploads a model, which is no part of a training; remove it, and upload the student after the run with "
                "`potstill push RUN --to USER/NAME`",
            )
        if key in REFUSED:
            raise about_key(key, f"must not be set, because {REFUSED[key]}; remove it")
        if key not in TrainingFields.__annotations__:
            near = difflib.get_close_matches(str(key), TrainingFields.__annotations__, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "see the documentation of TrainingArguments"
            raise about_key(key, f"is no field of TrainingArguments; {hint}")
        new = str(key).replace("gradient_checkpointing", "activation_checkpointing")
        if new != key and new in training:
            raise about_key(key, f"is the old name of `{new}`, which is given too; remove one of the two")
    return {key: whole(value) for key, value in training.items()} if isinstance(training, dict) else training


def _as_given(training: Any, validate: Callable[[Any], Any]) -> Any:
    # The validated copy would have 3.0 where the recipe has 3.
    validate(training)
    return training


Training = Annotated[
    TrainingFields, WrapValidator(_as_given), BeforeValidator(_known_fields), BeforeValidator(without_secrets)
]
"""The `training:` of a recipe: a dictionary with the fields that it gives, as it gives them."""
