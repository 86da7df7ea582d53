import pytest
import torch

from potstill.errors import UserError
from potstill.losses.hidden_states import HiddenDistance, HiddenLoss, uniform_layer_map


def test_layers_are_mapped_by_depth_last_with_last() -> None:
    assert uniform_layer_map(3, 12) == [(0, 3), (1, 7), (2, 11)]
    assert uniform_layer_map(2, 5) == [(0, 1), (1, 4)]
    assert uniform_layer_map(4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    with pytest.raises(UserError, match=r"5 layers.*teacher of 4"):
        uniform_layer_map(5, 4)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_equal_states_have_no_distance(distance: str) -> None:
    states = [torch.randn(6, 4) for _ in range(3)]
    match = HiddenDistance([(0, 0), (1, 2)], 4, 4, distance)  # type: ignore[arg-type]
    assert list(match.parameters()) == []
    torch.testing.assert_close(match([states[0], states[2]], states), torch.zeros(6), atol=1e-6, rtol=0)


def test_one_number_per_token_and_a_gradient_for_projector_and_student() -> None:
    student, teacher = [torch.randn(6, 4, requires_grad=True)], [torch.randn(6, 7, requires_grad=True)]
    match = HiddenDistance([(0, 0)], 4, 7)
    distances = match(student, teacher)
    expected = (student[0] @ match.projectors[0].weight.T - teacher[0]).square().sum(-1) / 7
    torch.testing.assert_close(distances, expected)
    distances.sum().backward()
    assert student[0].grad is not None
    assert match.projectors[0].weight.grad is not None
    assert teacher[0].grad is None


def test_cosine_does_not_see_length() -> None:
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, -5.0]])
    assert HiddenDistance([(0, 0)], 2, 2, "cosine")([student], [teacher]).tolist() == [0.0, 2.0]


def test_mistakes_are_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        HiddenDistance([], 2, 2)
    with pytest.raises(UserError, match="no distance 'l1'"):
        HiddenDistance([(0, 0)], 2, 2, "l1")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"pair 1, 0.*1 and 1 layers"):
        HiddenDistance([(1, 0)], 2, 2)([torch.zeros(1, 2)], [torch.zeros(1, 2)])


def test_a_projector_is_learned_in_float32_beside_a_student_in_bfloat16() -> None:
    match = HiddenDistance([(0, 0)], 4, 7)
    distances = match([torch.randn(6, 4, dtype=torch.bfloat16)], [torch.randn(6, 7, dtype=torch.bfloat16)])
    assert distances.dtype == torch.float32


def test_layers_may_be_given_by_number() -> None:
    match, states = HiddenDistance([(1, 3)], 4, 4), torch.randn(6, 4)
    torch.testing.assert_close(match({1: states}, {3: states}), torch.zeros(6))
    with pytest.raises(UserError, match=r"pair 1, 3"):
        match({0: states}, {3: states})


def test_pairs_are_those_given_or_by_depth() -> None:
    assert HiddenLoss().layer_map(2, 5) == [(0, 1), (1, 4)]
    assert HiddenLoss(layers=[(1, 0), (1, 4)]).layer_map(2, 5) == [(1, 0), (1, 4)]
    with pytest.raises(UserError, match=r"pair 1, 5, but the student has 2 layers and the teacher 5, counted from 0"):
        HiddenLoss(layers=[(1, 5)]).layer_map(2, 5)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("weight must be", {"weight": -1.0}),
        ("weight must be", {"weight": float("inf")}),
        ("no distance 'l1'; use mse or cosine", {"distance": "l1"}),
        ("layers is 'all'; give pairs", {"layers": "all"}),
        ("layers must be pairs", {"layers": []}),
        ("layers must be pairs", {"layers": [(1, 2, 3)]}),
    ],
)
def test_a_wrong_loss_is_refused(message: str, arguments: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=f"hidden_match: .*{message}"):
        HiddenLoss(**arguments)
