"""Models are grouped by the memory that they take."""

import pytest

from potstill.metrics.model_groups import in_groups


@pytest.mark.parametrize(
    ("sizes", "room", "groups"),
    [
        ([], 10, [0]),
        ([3, 3, 3], 9, [3]),
        ([3, 3, 3], 8, [2, 1]),
        ([30, 3, 3], 8, [1, 2]),
        ([3, 3], -5, [1, 1]),
        ([1] * 20, 100, [8, 8, 4]),
    ],
)
def test_groups_fit_into_the_memory(sizes, room, groups):
    found = in_groups(sizes, room)
    assert [group.stop - group.start for group in found] == groups
    assert [size for group in found for size in sizes[group]] == sizes
