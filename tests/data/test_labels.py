import torch

from potstill.data.labels import IGNORE_INDEX, learned_labels, supervised, supervised_positions


def test_labels_are_shifted_once_and_ignored_ones_left_out() -> None:
    labels = torch.tensor([[10, 11, IGNORE_INDEX, 13], [IGNORE_INDEX, IGNORE_INDEX, 22, 23]])
    hidden = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    rows, following = supervised(hidden, labels)
    # The token before each label, never the label's own, and nothing after the last.
    assert following.tolist() == [11, 13, 22, 23]
    assert torch.equal(rows, torch.stack([hidden[0, 0], hidden[0, 2], hidden[1, 1], hidden[1, 2]]))
    assert supervised_positions(labels)[0].tolist() == [0, 2, 5, 6]


def test_gradient_goes_back_to_supervised_tokens_only() -> None:
    labels = torch.tensor([[1, 2, IGNORE_INDEX]])
    hidden = torch.randn(1, 3, 2, requires_grad=True)
    supervised(hidden, labels)[0].sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[[1, 1], [0, 0], [0, 0]]]


def test_nothing_supervised() -> None:
    rows, following = supervised(torch.randn(2, 3, 4), torch.full((2, 3), IGNORE_INDEX))
    assert rows.shape == (0, 4)
    assert following.shape == (0,)


def test_what_only_a_pad_could_predict_is_not_learned() -> None:
    labels = torch.tensor([[IGNORE_INDEX, 5, 6, 7], [4, 5, 6, IGNORE_INDEX]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    assert learned_labels(labels, mask).tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 6, 7], [4, 5, 6, IGNORE_INDEX]]
    assert learned_labels(labels) is labels
