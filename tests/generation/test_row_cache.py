"""Rows keep their keys and values when others join, grow and leave."""

import torch

from potstill.generation.row_cache import RowCache

CPU = torch.device("cpu")


def states(rows, length, first=0.0):
    """Keys and values of two layers; each number is another one."""
    numbers = first + torch.arange(2 * 2 * rows * 3 * length * 4, dtype=torch.float).view(2, 2, rows, 3, length, 4)
    return [(keys, -values) for keys, values in numbers]


def read(cache, token):
    """Read one more token of each row; returns what the second layer holds."""
    mask, positions = cache.begin_step(CPU)
    new = torch.full((len(cache.lengths), 3, 1, 4), float(token))
    for layer in range(2):
        kept = cache.update(new, -new, layer)
    cache.end_step()
    return mask, positions[:, 0].tolist(), kept


def test_each_row_holds_its_tokens_at_their_positions():
    cache, given = RowCache(2), states(2, 5)
    cache.join(given, 1, 3)
    cache.join(given, 0, 5)
    mask, positions, (keys, values) = read(cache, 7)
    assert positions == [3, 5]
    assert mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert cache.get_mask_sizes(1, 0) == (6, 0)
    assert torch.equal(keys[0, :, :3], given[1][0][1, :, :3])
    assert torch.equal(values[1, :, :5], given[1][1][0])
    assert (keys[0, :, 3] == 7).all()
    assert (values[1, :, 5] == -7).all()
    assert cache.lengths == [4, 6]


def test_the_last_row_takes_the_place_of_one_that_leaves():
    cache, given = RowCache(3), states(3, 4)
    for row in range(3):
        cache.join(given, row, 4 - row)
    cache.leave(0)
    assert cache.lengths == [2, 3]
    cache.leave(1)
    assert cache.lengths == [2]
    cache.join(given, 0, 4)
    _, positions, (keys, _) = read(cache, 9)
    assert positions == [2, 4]
    assert torch.equal(keys[0, :, :2], given[1][0][2, :, :2])
    assert torch.equal(keys[1, :, :4], given[1][0][0])


def test_rows_grow_far_beyond_the_first_room():
    cache, given = RowCache(2), states(1, 2)
    cache.join(given, 0, 2)
    cache.join([], 0, 0)
    for token in range(300):
        _, _, (keys, _) = read(cache, token)
    assert keys.shape == (2, 3, 302, 4)
    assert torch.equal(keys[0, :, :2], given[1][0][0])
    assert keys[0, 0, 2:, 0].tolist() == keys[1, 0, :300, 0].tolist() == list(range(300))


def test_no_row_has_room_for_more_tokens_than_it_will_have():
    def room(most):
        cache = RowCache(2, most)
        cache.join(states(1, 100), 0, 100)
        cache.join([], 0, 0)
        _, _, (keys, _) = read(cache, 1)
        return keys.untyped_storage().nbytes() / (2 * 3 * 4 * keys.element_size())

    # A multiple of 64.
    assert room(most=105) == 128
    assert room(most=1000) == 256


def test_what_is_masked_is_finite_so_that_attention_can_multiply_it_by_nothing():
    cache = RowCache(2)
    cache.join(states(1, 130), 0, 130)
    cache.join([], 0, 0)
    _, _, kept = read(cache, 1)
    assert all(each.isfinite().all() for each in kept)


def test_a_cleared_cache_holds_no_rows():
    cache = RowCache(1)
    cache.join(states(1, 3), 0, 3)
    cache.clear()
    cache.join(states(1, 2, first=500), 0, 2)
    _, positions, (keys, _) = read(cache, 1)
    assert positions == [2]
    assert torch.equal(keys[0, :, :2], states(1, 2, first=500)[1][0][0])
