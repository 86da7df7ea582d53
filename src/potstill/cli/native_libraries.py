"""Settings of torch and oneDNN for a CPU, which they read from the environment once, at their first use.

A program that uses potstill as a library sets them itself: docs/from-trl.md says how.
"""

import os

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


def set_native_libraries() -> None:
    """Set what a user has not set. Call this before torch is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
