"""Model groups: which models are in memory together, to read the same batches side by side."""

from collections.abc import Sequence

MOST_TOGETHER = 8
"""The greatest number of models beside the teachers in one group. With more, the teacher's share is small anyway."""
BYTES_PER_WEIGHT = 4
"""Of a loaded model, or more than that."""
SHARE_OF_MEMORY = 0.5
"""What models may take of the memory. The rest is for their activations, and for other programs."""


def fit_beside_teachers(sizes: Sequence[float], teachers: float, room: float) -> bool:
    """Whether models are one group with their teachers beside them. Otherwise the teachers read all of the text first.

    Args:
        sizes: the bytes of each model.
        teachers: those of all teachers.
        room: the bytes of memory for one group.
    """
    return len(in_groups(sizes, room - teachers)) == 1 and sum(sizes) + teachers <= room


def in_groups(sizes: Sequence[float], room: float) -> list[slice]:
    """Models in groups that fit into memory: each has at least one model and at most MOST_TOGETHER.

    Args:
        sizes: the bytes of each model.
        room: the bytes of memory for one group.
    """
    starts = [0]
    for at in range(1, len(sizes)):
        if at - starts[-1] == MOST_TOGETHER or sum(sizes[starts[-1] : at + 1]) > room:
            starts.append(at)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]
