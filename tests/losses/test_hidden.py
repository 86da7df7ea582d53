import pytest
import torch

from potstill.losses.hidden import HiddenMatch, uniform_layer_map
from potstill.words import UserError


def test_layers_are_mapped_by_depth_last_with_last() -> None:
    assert uniform_layer_map(3, 12) == [(0, 3), (1, 7), (2, 11)]
    assert uniform_layer_map(2, 5) == [(0, 1), (1, 4)]
    assert uniform_layer_map(4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    with pytest.raises(UserError, match=r"5 layers.*teacher of 4"):
        uniform_layer_map(5, 4)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_equal_states_have_no_distance(distance: str) -> None:
    states = [torch.randn(6, 4) for _ in range(3)]
    match = HiddenMatch([(0, 0), (1, 2)], 4, 4, distance)  # type: ignore[arg-type]
    assert list(match.parameters()) == []
    torch.testing.assert_close(match([states[0], states[2]], states), torch.zeros(6), atol=1e-6, rtol=0)


def test_one_number_per_token_and_a_gradient_for_projector_and_student() -> None:
    student, teacher = [torch.randn(6, 4, requires_grad=True)], [torch.randn(6, 7, requires_grad=True)]
    match = HiddenMatch([(0, 0)], 4, 7)
    distances = match(student, teacher)
    expected = (student[0] @ match.projectors[0].weight.T - teacher[0]).square().sum(-1) / 7
    torch.testing.assert_close(distances, expected)
    distances.sum().backward()
    assert student[0].grad is not None
    assert match.projectors[0].weight.grad is not None
    assert teacher[0].grad is None


def test_cosine_does_not_see_length() -> None:
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, -5.0]])
    assert HiddenMatch([(0, 0)], 2, 2, "cosine")([student], [teacher]).tolist() == [0.0, 2.0]


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="empty"):
        HiddenMatch([], 2, 2)
    with pytest.raises(UserError, match="no distance 'l1'"):
        HiddenMatch([(0, 0)], 2, 2, "l1")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"pair 1, 0.*1 and 1 layers"):
        HiddenMatch([(1, 0)], 2, 2)([torch.zeros(1, 2)], [torch.zeros(1, 2)])
