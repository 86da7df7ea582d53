"""Load and save: loads a student's start for training, and a finished student for reading; saves LoRA students.

A finished student is a plain folder, a plain folder with a merged adapter, or a folder with an adapter alone, which is
read on top of its start. An adapter always sees the same start weights as in its training: a start of 4 or 8 bits is
quantised at each load from the same float32 weights, and a start of 16 bits is stored in 16 bits.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from potstill.device import device
from potstill.files.atomic import read_json, remove, write_json
from potstill.models.pretrained import ModelSource
from potstill.models.quantization import quantization_config
from potstill.recipe.student import Checkpoint, Student
from potstill.students.adapters import CONFIG, adapter_config, load_adapter, merged, with_adapter
from potstill.students.build import checkpoint_files

KEY = "student.quantization"


def check(student: Student) -> None:
    """Check the student's model, adapter and quantisation with transformers and peft, before any work is done.

    Raises:
        UserError: the model cannot be a student, a field is unknown, a value is refused, or a package is missing.
    """
    if student.adapter is not None:
        adapter_config(student.adapter)
    if student.quantization is not None:
        _bits(student.quantization)
    if isinstance(student, Checkpoint):
        checkpoint_files(student).check()


def load_start(folder: Path, student: Student) -> PreTrainedModel:
    """Load the start for training: in the recipe's 4 or 8 bits, as stored if it gets an adapter, or in float32."""
    if student.quantization is None:
        return _files(folder).weights(dtype=torch.float32 if student.adapter is None else "auto")
    config = _bits(student.quantization)
    # Otherwise it logs at every 8-bit product that the inputs are rounded too.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    how: dict[str, Any] = {"dtype": torch.float32, "quantization_config": config, "device_map": {"": device()}}
    model = _files(folder).weights(**how)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such CPUs, bitsandbytes rounds the weights' scales to bfloat16 in the first forward without gradients,
            # and keeps them so. After a measurement in between, a training would continue with another start.
            module.support_avx512bf16_for_cpu = False
    return model


def load_to_train(folder: Path, student: Student, seed: int) -> PreTrainedModel:
    """Load the start for training, with a new adapter drawn by `seed` if the recipe asks for one.

    Raises:
        UserError: peft refuses the adapter.
    """
    start = load_start(folder, student)
    return start if student.adapter is None else with_adapter(start, student.adapter, seed)


def load_student(folder: Path, start: Path, student: Student, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a student for reading only, on this machine's device: the start itself, or a trained student.

    Args:
        folder: the student's folder.
        start: the start's current folder; the path in an adapter's own file is outdated if the run was moved.
        student: the recipe's section.
        dtype: the run's number format, in which its teachers are read too.
    """
    adapter = (folder / CONFIG).is_file()
    upon_start = student.adapter is not None and (adapter or folder == start)
    if upon_start and student.quantization is not None:
        model = load_start(start, student)
    elif upon_start and _files(start).config().dtype == torch.bfloat16:
        model = load_start(start, student).to(device())
    else:
        base = start if adapter else folder
        model = _files(base).weights(dtype=dtype).to(device())
    if adapter:
        # Not merged: in 16 bits, rounding would cancel many of the adapter's changes to the base weights.
        model = load_adapter(model, folder)
    return model.eval().requires_grad_(False)


def unmerged(student: Student) -> Student:
    """The same student without merging its adapter, so that its snapshots are small and can be averaged."""
    return student.model_copy(update={"merge": False})


def finish_student(folder: Path, start: Path, student: Student) -> None:
    """Finish the adapter that a training has saved, merged or not as the recipe asks; other folders stay unchanged."""
    if not (folder / CONFIG).is_file():
        return
    if student.merge:
        plain = merged(load_start(start, student), folder)
        for file in folder.glob("adapter_*"):
            remove(file)
        plain.save_pretrained(folder)
    else:
        # With this path, transformers' own from_pretrained also finds the start, until the run is moved.
        config: dict[str, Any] = read_json(folder / CONFIG) or {}
        for name, value in config.items():
            if name in ("target_modules", "exclude_modules") and isinstance(value, list):
                # Peft keeps them as sets, whose order changes from process to process.
                config[name] = sorted(value)
        write_json(folder / CONFIG, config | {"base_model_name_or_path": str(start.resolve())})
    # Peft's model card is an empty form.
    remove(folder / "README.md")


def _files(folder: Path) -> ModelSource:
    return ModelSource(str(folder), "the run's student")


def _bits(fields: dict[str, Any]) -> Any:
    return quantization_config({"quant_method": "bitsandbytes"} | fields, KEY)
