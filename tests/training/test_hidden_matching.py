import pytest
import torch
from transformers import LlamaConfig

from potstill.errors import UserError
from potstill.losses.hidden_states import HiddenLoss
from potstill.training.hidden_matching import PROJECTORS, HiddenMatching


def config(size, layers):
    return LlamaConfig(hidden_size=size, num_hidden_layers=layers, num_attention_heads=2, vocab_size=8)


def matching(losses, *sizes, seed=0):
    shares = [1 / len(sizes)] * len(sizes)
    return HiddenMatching(losses, config(4, 2), [config(size, 4) for size in sizes], shares, seed)


def test_only_the_layers_that_are_compared_are_asked_for():
    one = matching([HiddenLoss(layers=[(0, 1)]), HiddenLoss(layers=[(0, 3), (0, 2)])], 4, 6)
    assert one.student_layers == {0}
    assert one.teacher_layers == [{1, 2, 3}, {1, 2, 3}]


def test_projectors_are_the_same_on_every_rank_and_move_no_other_draw():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = matching([HiddenLoss()], 6, seed=5).state_dict()
    assert torch.equal(torch.rand(3), expected)
    for name, weight in matching([HiddenLoss()], 6, seed=5).state_dict().items():
        assert torch.equal(weight, one[name])
    assert not all(torch.equal(weight, one[name]) for name, weight in matching([HiddenLoss()], 6).state_dict().items())


def test_an_optimizer_is_joined_once():
    one, weight = matching([HiddenLoss()], 6), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    one.join(optimizer, 0.5)
    one.join(optimizer, 0.5)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
    assert optimizer.param_groups[1]["weight_decay"] == 0.5
    matching([HiddenLoss()], 4).join(optimizer, 0.5)
    assert len(optimizer.param_groups) == 2, "of one hidden size nothing is learned"


def test_projectors_come_back_bit_for_bit(tmp_path):
    one, other = matching([HiddenLoss()], 6), matching([HiddenLoss()], 6, seed=9)
    one.save(tmp_path)
    other.load(tmp_path)
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())
    with pytest.raises(UserError, match="does not hold the projectors"):
        matching([HiddenLoss()], 8).load(tmp_path)
    with pytest.raises(UserError, match="does not hold the projectors"):
        matching([HiddenLoss()], 6).load(tmp_path / "nothing")


def test_without_projectors_nothing_is_saved(tmp_path):
    one = matching([HiddenLoss()], 4)
    one.save(tmp_path)
    one.load(tmp_path)
    assert not (tmp_path / PROJECTORS).exists()
