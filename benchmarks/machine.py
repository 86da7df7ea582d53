"""The machine that runs the benchmarks: its facts for the page, and the pinning to one core and one thread."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("potstill", "torch", "transformers", "trl", "liger_kernel", "triton", "numpy")


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pin() -> int:
    """Pin this process to one core and torch to one thread. Returns the core's number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    return core


def versions() -> str:
    """The installed versions of all measured packages."""
    return " · ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The names of processor and GPU, and the memory."""
    with Path("/proc/cpuinfo").open() as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    isa = torch.backends.cpu.get_cpu_capability()
    bf16 = "bf16 in hardware" if torch.cpu._is_avx512_bf16_supported() else "bf16 emulated"
    cores = os.cpu_count()
    return f"{names[0] if names else platform.machine()} ({isa}, {bf16}), {cores} cores, {memory:.0f} GiB{gpu}"


def load() -> float:
    """The load average of the last minute, this process included."""
    return os.getloadavg()[0]


def available_bytes(device: torch.device) -> int:
    """The memory that is available without swapping: a GPU's own, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with Path("/proc/meminfo").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
