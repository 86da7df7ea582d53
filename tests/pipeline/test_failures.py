"""Failures: those with a known remedy are explained; others pass unchanged."""

from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.pipeline.failures import explain_failures
from potstill.pipeline.graph import STAGES
from potstill.recipe import load_recipe
from potstill.recipe.step import Step

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: can't allocate memory: 9 bytes."


def told(error, stage="distil"):
    with pytest.raises(UserError) as found, explain_failures(Step(stage, 0), Path("runs/x")):
        raise error
    assert found.value.__cause__ is error, "`--debug` shows where it came from"
    return str(found.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:595] . unexpected pos 64: No space left on device"),
    ],
    ids=["errno", "quota", "safetensors", "torch"],
)
def test_a_full_disk(error):
    assert told(error) == (
        "distil/seed-0: the disk that holds runs/x is full; make room there or choose another `--run-dir`, then run "
        "the same command: it continues from the finished files"
    )


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError(CUDA), RuntimeError(CPU), OSError(12, "Cannot allocate memory")],
    ids=["python", "cuda", "cpu", "system"],
)
def test_too_little_memory(error):
    sentence = told(error)
    assert sentence.startswith("distil/seed-0: out of memory; lower `distil.training.per_device_train_batch_size`")
    assert "raise `gradient_accumulation_steps`" in sentence
    assert sentence.endswith(", then run the same command")


def test_torchs_own_error_is_known():
    import torch

    assert "out of memory" in told(torch.OutOfMemoryError(CUDA))


@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_every_stage_names_keys_that_there_are(stage):
    sentence = told(MemoryError(), stage)
    recipe = load_recipe("quickstart").model_dump()
    for key in (part for part in sentence.split("`")[1::2] if "." in part and not part.startswith("distil.training")):
        section, name = key.split(".")
        assert name in recipe[section]
    assert ("batch_size" in sentence) == (stage in ("capture", "search", "distil", "control", "evaluate"))


def test_what_was_told_already_is_not_told_again():
    with pytest.raises(UserError, match=r"^`corpus`: no$"), explain_failures(Step("corpus"), Path()):
        raise UserError("`corpus`: no")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(2, "No such file"), KeyboardInterrupt()])
def test_every_other_failure_passes(error):
    with pytest.raises(type(error)) as found, explain_failures(Step("corpus"), Path()):
        raise error
    assert found.value is error
