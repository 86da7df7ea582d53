#!/bin/bash
# One run on the GPUs of several machines, under Slurm. It goes on by itself after a preemption or a time limit:
#
#     sbatch examples/slurm.sh mine.yaml --run-dir /shared/runs/mine
#
# The arguments are those of `potstill run`. The run folder lies on a disk that all machines share. Set the numbers of
# machines and GPUs here, with as many tasks as GPUs.
#SBATCH --job-name=potstill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the time limit, each task is told to save a checkpoint and to stop.
#SBATCH --signal=TERM@300

export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# Slurm starts the ranks itself: `torchrun` would end them 30 seconds after the signal.
srun --kill-on-bad-exit=0 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_WORLD_SIZE=${SLURM_NTASKS_PER_NODE:-$SLURM_NTASKS}
    exec potstill run "$@"' potstill "$@"
code=$?

# 130: stopped, with a checkpoint. 143: stopped in a stage that goes on without one.
if [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
    echo "the run was told to stop: job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
