import pytest

from potstill.errors import UserError
from potstill.losses.loss import KINDS, Loss


def test_parameters_have_their_published_defaults() -> None:
    assert Loss("jsd").beta == 0.5
    assert Loss("jsd").alpha is None
    assert Loss("skew_kl").alpha == Loss("skew_reverse_kl").alpha == 0.1
    assert Loss("forward_kl").beta is None


def test_every_kind_is_a_divergence_or_cross_entropy() -> None:
    from potstill.losses import divergences

    for kind in KINDS:
        alone = kind == "cross_entropy" or Loss(kind).crosses_tokenizers
        assert alone or callable(getattr(divergences, kind))
        assert Loss(kind).needs_teacher == (kind != "cross_entropy")


def test_scale_is_the_power_of_the_temperature() -> None:
    assert Loss("forward_kl", temperature=3).scale == 9
    assert Loss("total_variation", temperature=3).scale == Loss("uld", temperature=3).scale == 3
    assert Loss("cross_entropy").scale == Loss("alm").scale == 1


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("no loss 'foward_kl'.*mean forward_kl", {"kind": "foward_kl"}),
        ("the kinds are", {"kind": "xyz"}),
        ("write HiddenLoss", {"kind": "hidden_match"}),
        ("weight must be", {"kind": "jsd", "weight": -1.0}),
        ("weight must be", {"kind": "jsd", "weight": float("nan")}),
        ("temperature must be above 0", {"kind": "jsd", "temperature": 0.0}),
        ("cross_entropy has no temperature", {"kind": "cross_entropy", "temperature": 2.0}),
        ("alm has no temperature", {"kind": "alm", "temperature": 2.0}),
        ("forward_kl has no beta; it belongs to jsd", {"kind": "forward_kl", "beta": 0.5}),
        ("jsd has no alpha; it belongs to skew_kl, skew_reverse_kl", {"kind": "jsd", "alpha": 0.5}),
        ("beta must lie between 0 and 1", {"kind": "jsd", "beta": 1.0}),
        ("alpha must lie between 0 and 1", {"kind": "skew_kl", "alpha": 0.0}),
    ],
)
def test_mistakes_are_refused(message: str, arguments: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=message):
        Loss(**arguments)
