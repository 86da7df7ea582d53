"""Section `memory`: the memory of a loss beyond the gradients that it returns, at a vocabulary of 128k.

On a CPU the figure is the peak of the process's resident size. Each variant has its own process there, because it could
reuse memory that another variant freed. On a GPU it is the peak of what CUDA's allocator has handed out, which does not
count freed memory, so that all variants run in this process. Nothing here is timed.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.aims import Measured
from benchmarks.peers import GKD, LIGER, LIGER_COMPILED, LIGER_KERNEL, NAIVE, TRL_CHUNKED, peers
from benchmarks.problem import make_problem
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.variants import COMPILED, OURS, Variant, ours
from potstill.errors import first_line
from potstill.losses.chunked import MEMORY_BUDGET
from potstill.losses.cpu_buffers import free_all
from potstill.losses.loss import Loss

VOCABULARY, WIDTH = 128256, 576
MIB = 2**20
# Expected memory of a variant, in multiples of one model's logits. A variant that would not fit is not run.
_WHOLE_LOGITS = {(NAIVE, "forward_kl"): 8, (GKD, "jsd"): 17}
RUNS = [
    (OURS, "forward_kl"),
    (COMPILED, "forward_kl"),
    (OURS, "jsd"),
    (COMPILED, "jsd"),
    (NAIVE, "forward_kl"),
    (GKD, "jsd"),
    (TRL_CHUNKED, "jsd"),
    (LIGER, "jsd"),
    (LIGER_COMPILED, "jsd"),
]
ON_A_GPU = [(LIGER_KERNEL, "forward_kl"), (LIGER_KERNEL, "jsd")]


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the memory: the table, and the figures for the aims."""
    few = 512 if settings.quick else 2048
    dtype = "bfloat16" if settings.device.type == "cuda" else "float32"
    table = Table(
        f"Transient memory of the loss, V = {VOCABULARY}, H = {WIDTH}, {dtype}, MiB",
        ("variant", "loss", f"{few} tokens", f"{2 * few} tokens", "growth"),
        "Beyond inputs, weights and the gradients that are left behind. A variant that would not fit was not run.",
    )
    measured = []
    for name, kind in RUNS[:2] if settings.quick else _runs(settings.device):
        say(f"memory: {name}, {kind}")
        found = [_peak(name, kind, tokens, dtype, settings.device) for tokens in (few, 2 * few)]
        cells = [one if isinstance(one, str) else f"{one:.0f}" for one in found]
        first, second = found
        if isinstance(first, str) or isinstance(second, str):
            table.add(name, kind, *cells, "")
            continue
        table.add(name, kind, *cells, f"{second - first:+.0f}")
        if name in (OURS, COMPILED):
            measured.append(Measured("memory", max(first, second), f"{name}, {kind}"))
            measured.append(Measured("memory, growth", second - first, f"{name}, {kind}"))
    return [table], measured


def _runs(device: torch.device) -> list[tuple[str, str]]:
    return [*RUNS, *(ON_A_GPU if device.type == "cuda" else [])]


def _peak(name: str, kind: str, tokens: int, dtype: str, device: torch.device) -> float | str:
    """MiB of a variant, or why there is no figure."""
    needed = _WHOLE_LOGITS.get((name, kind), 0) * tokens * VOCABULARY * 4
    if needed > 0.8 * machine.available_bytes(device):
        return f"does not fit (about {needed / 2**30:.0f} GiB)"
    return (_measured_here if device.type == "cuda" else _measured_apart)(name, kind, tokens, dtype, device)


def _measured_here(name: str, kind: str, tokens: int, dtype: str, device: torch.device) -> float | str:
    try:
        return transient(_variant(name, kind, device), tokens, getattr(torch, dtype), device)
    except Exception as error:  # noqa: BLE001 - a peer may fail in any way, and the others must still run
        return f"failed ({first_line(error)[:60]})"
    finally:
        torch.cuda.empty_cache()


def _measured_apart(name: str, kind: str, tokens: int, dtype: str, device: torch.device) -> float | str:
    command = [sys.executable, "-m", "benchmarks.memory", name, kind, str(tokens), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed ({done.stderr.strip().splitlines()[-1][:60] if done.stderr.strip() else done.returncode})"
    return float(json.loads(done.stdout.splitlines()[-1])["mib"])


def _variant(name: str, kind: str, device: torch.device) -> Variant:
    """The variant of that name.

    Raises:
        LookupError: it is not installed.
    """
    losses = (Loss(kind),)
    # Not the budget of a GPU with free memory: the least that a loss can do with.
    variants = [ours(losses, compiled, MEMORY_BUDGET) for compiled in (False, True)] + peers(losses, device)
    chosen = next((variant for variant in variants if variant.name == name), None)
    if chosen is None:
        raise LookupError(f"{name} is not installed")
    return chosen


def transient(variant: Variant, tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    """Peak MiB of a step, minus the memory before it and the gradients after it."""
    problem = make_problem(tokens, VOCABULARY, WIDTH, dtype, device)
    # Warm up: compile, and let libraries allocate their buffers. Only a variant compiled for its shape needs all rows.
    some = tokens if variant.name == LIGER_COMPILED else 256
    variant.step(make_problem(some, VOCABULARY, WIDTH, dtype, device))
    before = resident(device, reset=True)
    variant.step(problem)
    assert problem.hidden.grad is not None
    assert problem.weight.grad is not None
    left = problem.hidden.grad.nbytes + problem.weight.grad.nbytes
    return (resident(device) - before - left) / MIB


def resident(device: torch.device, reset: bool = False) -> int:
    """The peak in bytes since the last reset."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        if reset:
            gc.collect()
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        gc.collect()
        free_all()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(name: str, kind: str, tokens: str, dtype: str) -> None:
    """Measure one variant and print its MiB. :func:`section` starts a process that runs this."""
    # Nothing is timed here, so all cores may be used.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    device = machine.device()
    try:
        chosen = _variant(name, kind, device)
    except LookupError as error:
        sys.exit(str(error))
    print(json.dumps({"mib": transient(chosen, int(tokens), getattr(torch, dtype), device)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
