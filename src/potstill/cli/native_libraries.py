"""Settings of torch, oneDNN and the C library for a CPU.

torch and oneDNN read theirs from the environment once, at their first use. A program that uses potstill as a library
sets them itself: docs/from-trl.md says how.
"""

import ctypes
import os
from contextlib import suppress

SETTINGS = {
    # Fresh memory in huge pages. Each step asks for its gradients and its logits anew. In pages of 4 KiB the system
    # takes longer to give this memory than a cast takes to fill it.
    "THP_MEM_ALLOC_ENABLE": "1",
    # How many kernels torch and oneDNN keep; by themselves 1,024. Each shape of a product has its own, with memory that
    # it works in, so batches of many lengths fill gigabytes. In bf16, all of quickstart's training uses 21 kernels, and
    # the evaluation of its models 60.
    "LRU_CACHE_CAPACITY": "128",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


MALLOC = {"MALLOC_TRIM_THRESHOLD_": (-1, 64 * 2**20), "MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20)}
"""By the variable that sets it at a program's start: the number of a parameter of glibc's ``mallopt``, and its value.

Freed memory at the end of the heap is kept up to 64 MiB, and only pieces of more than 32 MiB come from the system each
time. By itself, glibc raises both with the largest piece of up to 32 MiB that a program has freed. So it may give the
memory of every block of logits back and ask for it again: 120,000 page faults, a sixth of the time of an evaluation.
"""


def set_native_libraries() -> None:
    """Set what a user has not set. Call this before torch is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # Only glibc has it.
    with suppress(OSError, AttributeError):
        set_parameter = ctypes.CDLL(None).mallopt
        for name, (parameter, limit) in MALLOC.items():
            if name not in os.environ and "glibc.malloc." not in os.environ.get("GLIBC_TUNABLES", ""):
                set_parameter(parameter, limit)
