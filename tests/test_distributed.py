"""Several processes on one run: `torchrun -m potstill run` must give the result of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill import distributed
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.status import describe
from potstill.recipe import load_recipe
from tiny import toy_overrides


def test_alone_nothing_is_waited_for(monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    distributed.barrier()
    assert distributed.local_world_size() == 1
    assert (distributed.world_size(), distributed.rank(), distributed.is_first()) == (1, 0, True)
    assert distributed.any_of(True) is True
    assert distributed.any_of(False) is False
    assert distributed.broadcast("mine") == "mine"


@pytest.mark.slow
def test_two_ranks_end_in_the_student_of_one(toy_folder: Path, tmp_path: Path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_recipe(load_recipe("quickstart", overrides(toy_folder, batch=4)), Run(alone))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    sets = [part for override in overrides(toy_folder, batch=2) for part in ("--set", override)]
    command = [*launch, "-m", "potstill", "run", "quickstart", "--run-dir", str(together), *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left" not in describe(together)
    for student in ("distil/student", "control/seed-0/student"):
        ours, theirs = (load_file(folder / student / "model.safetensors") for folder in (together, alone))
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)
    store = "capture/smollm2"
    records = sorted((alone / store).glob("*.records"))
    assert records
    for file in records:
        assert (together / store / file.name).read_bytes() == file.read_bytes()
    assert Run(together).manifest("report") is not None


def overrides(toys: Path, batch: int) -> list[str]:
    return [*toy_overrides("quickstart", toys), f"distil.training.per_device_train_batch_size={batch}"]
