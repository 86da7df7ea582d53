"""The Slurm script: a job that is told to stop goes back into the queue, and on to the weights of one rank alone."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe
from tiny import toy_overrides
from toy_training import assert_equal

SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sh"

SRUN = """\
#!/bin/bash
# Two tasks on this machine. When the first job has a checkpoint, both are told to stop, as before a preemption.
shift
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 "$@" & tasks[$task]=$!
done
until [ -e "$STUB/told" ] || ! kill -0 ${tasks[0]} 2>/dev/null; do
    if compgen -G "$RUN/distil/seed-0/checkpoints/checkpoint-*/hashes.json" >/dev/null; then
        touch "$STUB/told"
        kill -TERM "${tasks[@]}"
    fi
    read -t 0.02 <> <(:)
done
for task in 0 1; do wait ${tasks[$task]} || code=$?; done
exit ${code:-0}
"""

SCONTROL = """\
#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$STUB/requeued"; fi
"""

SBATCH = """\
#!/bin/bash
# Starts the script, and again as often as it went back into the queue.
jobs=0
while [ $jobs -le "$(cat "$STUB/requeued" 2>/dev/null | wc -l)" ]; do bash "$@"; code=$?; jobs=$((jobs + 1)); done
exit $code
"""


def overrides(folder: Path, samples: int) -> list[str]:
    """A training of a live teacher, of so many samples a rank."""
    training = {"max_steps": 24, "save_steps": 4, "per_device_train_batch_size": samples}
    given = [f"distil.training.{key}={value}" for key, value in training.items()]
    return [*toy_overrides("quickstart", folder), *given, "capture=null", "distributed.strategy=fsdp2"]


@pytest.mark.slow
def test_a_job_that_was_told_to_stop_goes_on_to_the_weights_of_one_rank(toy_folder, tmp_path):
    stub, run = tmp_path / "stub", tmp_path / "run"
    stub.mkdir()
    potstill = f'#!/bin/bash\nexec {sys.executable} -m potstill "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "sbatch": SBATCH, "potstill": potstill}.items():
        (stub / name).write_text(text)
        (stub / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(random.randrange(10**6)), "SLURM_JOB_NODELIST": "localhost"}
    environment = os.environ | job | {"STUB": str(stub), "RUN": str(run), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{stub}{os.pathsep}{os.environ['PATH']}"
    sets = [part for override in overrides(toy_folder, 2) for part in ("--set", override)]
    arguments = [str(SCRIPT), "quickstart", "--run-dir", str(run), "--until", "distil", *sets]
    done = subprocess.run([str(stub / "sbatch"), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (stub / "requeued").read_text().splitlines() == [f"requeue {job['SLURM_JOB_ID']}"]
    assert "stopping: a checkpoint is written" in done.stdout
    assert "goes on from checkpoint-" in done.stdout

    alone = Run(tmp_path / "alone")
    run_recipe(load_recipe("quickstart", overrides(toy_folder, 4)), alone, until="distil")
    student = Path("distil", "seed-0", "student", "model.safetensors")
    assert_equal(load_file(run / student), load_file(alone.folder / student), tolerance=1e-5)
