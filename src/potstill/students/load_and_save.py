"""Loading a student: its start, to be trained upon, and what became of it, to be read.

A finished student is one of three folders: a plain one, a plain one that an adapter was merged into, or an adapter
alone, which is read upon its start. An adapter is read upon the very numbers that it was trained upon: a start of 4 or
8 bits is quantised each time it is loaded, always from the same float32 weights, and one of 16 bits is kept in them.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from potstill.device import device, run_dtype
from potstill.files.atomic import read_json, remove, write_json
from potstill.models.quantization import quantization_config
from potstill.recipe.student import Student
from potstill.students.adapters import CONFIG, adapter_config, merged, with_adapter

KEY = "student.quantization"


def check(student: Student) -> None:
    """Refuse what peft and transformers would refuse of a student, before anything has been spent.

    Raises:
        UserError: a field is unknown, a value refused, or a package missing.
    """
    if student.adapter is not None:
        adapter_config(student.adapter)
    if student.quantization is not None:
        _bits(student.quantization)


def load_start(folder: Path, student: Student) -> PreTrainedModel:
    """The start as it is trained upon: in float32, under an adapter as it is kept, or in the recipe's 4 or 8 bits."""
    if student.quantization is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if student.adapter is None else "auto")
    config = _bits(student.quantization)
    # It says at every product of 8 bits that the inputs are rounded too.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    how: dict[str, Any] = {"dtype": torch.float32, "quantization_config": config, "device_map": {"": device()}}
    model = AutoModelForCausalLM.from_pretrained(folder, **how)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such CPUs, bitsandbytes rounds the weights' scales to bfloat16 in the first forward that has no
            # gradients, for good: measured in between, a training would go on upon another start.
            module.support_avx512bf16_for_cpu = False
    return model


def load_to_train(folder: Path, student: Student, seed: int) -> PreTrainedModel:
    """The start as it goes into a training: whole, or with a new adapter, which `seed` draws.

    Raises:
        UserError: peft refuses the adapter.
    """
    start = load_start(folder, student)
    return start if student.adapter is None else with_adapter(start, student.adapter, seed)


def load_student(folder: Path, start: Path, student: Student) -> PreTrainedModel:
    """A student for reading only, on this machine's device: the start itself, or what a training has made of it.

    Args:
        folder: the student.
        start: the start, where it lies now; an adapter's own note of that may be older than the run's last move.
        student: what the recipe says.
    """
    adapter = (folder / CONFIG).is_file()
    upon_start = student.adapter is not None and (adapter or folder == start)
    if upon_start and student.quantization is not None:
        model = load_start(start, student)
    elif upon_start and AutoConfig.from_pretrained(start).dtype == torch.bfloat16:
        model = load_start(start, student).to(device())
    else:
        # In the number format in which the teachers run.
        base = start if adapter else folder
        model = AutoModelForCausalLM.from_pretrained(base, dtype=run_dtype("auto")).to(device())
    if adapter:
        from peft import PeftModel

        # Not merged: in 16 bits, many a weight of the base would not move at all by what the adapter adds to it.
        model = PeftModel.from_pretrained(model, str(folder))
    return model.eval().requires_grad_(False)


def unmerged(student: Student) -> Student:
    """The same student, whose adapter stays one: snapshots are small that way, and can be averaged."""
    return student.model_copy(update={"merge": False})


def finish_student(folder: Path, start: Path, student: Student) -> None:
    """Make of the adapter that a training has saved what the recipe asks for; any other folder is finished as it is."""
    if not (folder / CONFIG).is_file():
        return
    if student.merge:
        plain = merged(load_start(start, student), folder)
        for file in folder.glob("adapter_*"):
            remove(file)
        plain.save_pretrained(folder)
    else:
        # So that transformers' own from_pretrained finds the start too, as long as nobody moves the run.
        config: dict[str, Any] = read_json(folder / CONFIG) or {}
        for name, value in config.items():
            if name in ("target_modules", "exclude_modules") and isinstance(value, list):
                # Peft keeps them as sets, whose order is another one each time.
                config[name] = sorted(value)
        write_json(folder / CONFIG, config | {"base_model_name_or_path": str(start.resolve())})
    # A form that nobody has filled in.
    remove(folder / "README.md")


def _bits(fields: dict[str, Any]) -> Any:
    return quantization_config({"quant_method": "bitsandbytes"} | fields, KEY)
