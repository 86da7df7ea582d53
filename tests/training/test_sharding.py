"""Sharding of a training; that it gives the weights of one rank is in tests/training/test_trainer_ranks.py."""

import torch

from potstill.training.sharding import add_gradients_in_float32
from toy_training import arguments


def test_gradients_of_ranks_are_added_up_in_float32_where_layers_are_in_bfloat16(tmp_path):
    sharded = arguments(tmp_path, fsdp=True, bf16=True)
    add_gradients_in_float32(sharded)
    formats = sharded.fsdp_plugin_args["mixed_precision_policy"]
    assert formats["param_dtype"] == torch.bfloat16
    assert formats["reduce_dtype"] == torch.float32


def test_other_trainings_keep_their_formats(tmp_path):
    for fields in ({"fsdp": True}, {"bf16": True}):
        given = arguments(tmp_path, **fields)
        before = dict(given.fsdp_plugin_args or {})
        add_gradients_in_float32(given)
        assert (given.fsdp_plugin_args or {}) == before
