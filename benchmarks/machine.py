"""The machine that a figure was measured on, and making it quiet: one pinned core, one thread."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("potstill", "torch", "transformers", "trl", "liger_kernel", "triton", "numpy")


def device() -> torch.device:
    """The GPU where there is one, and else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pin() -> int:
    """Keep this process on one core and torch on one thread; the core's number."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    return core


def versions() -> str:
    """The installed version of everything that is measured."""
    return " · ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor (and GPU) by name, and the memory."""
    with Path("/proc/cpuinfo").open() as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    isa = torch.backends.cpu.get_cpu_capability()
    bf16 = "bf16 in hardware" if torch.cpu._is_avx512_bf16_supported() else "bf16 emulated"
    cores = os.cpu_count()
    return f"{names[0] if names else platform.machine()} ({isa}, {bf16}), {cores} cores, {memory:.0f} GiB{gpu}"


def load() -> float:
    """How many processes wanted a core in the last minute, this one among them."""
    return os.getloadavg()[0]


def available_bytes() -> int:
    """Memory that can be had without driving others out."""
    with Path("/proc/meminfo").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
