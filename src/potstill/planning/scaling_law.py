"""Scaling law: how the held-out loss falls with tokens and parameters, fitted on trainings that were measured.

The form is that of Busbridge et al., *Distillation Scaling Laws* (arXiv:2502.08606): L = E + (A/Nᵃ + B/Dᵇ)ᵍ, with N
parameters outside of embeddings and head, and D training tokens. E is the loss that is left with endless N and D. A fit
uses no more of this form than the points can tell apart: fewer terms where only N or only D differs, and g = 1 unless
there are many points. Published constants are not used: they hold for their text and their tokenizer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from potstill.errors import UserError
from potstill.metrics.intervals import Array

RESAMPLES, SEED, MOST_EVALUATIONS = 200, 0, 200
FEWEST_SIZES, FEWEST_PER_TERM = 3, 5
"""Distinct values of N and of D where both differ, and of the one that differs where only one does."""
FEWEST_FOR_BOTH, FEWEST_FOR_POWER, SIZES_FOR_POWER = 8, 20, 4
"""Points for the sum of both terms, and for the power g; and the distinct values of N and of D for g."""
EXPONENTS = (0.02, 3.0)
POWERS = (0.2, 3.0)
MOST_NOISE = 0.5
"""The greatest deviation of the points from the law, as a share of their spread."""
MOST_UNSURE = 0.1
"""The greatest share of these fits in which a factor and its exponent are not told apart."""
BEST_RATIO = (0.70, 0.85)
"""The best teacher's loss, as a share of the loss that the student reaches alone, in six pairs of size and tokens. They
were computed with the form of the published law; most of the constants behind them were not checked against the
paper."""


@dataclass(frozen=True)
class Point:
    """A measured training."""

    parameters: float
    """Those outside of embeddings and head."""
    tokens: float
    """The tokens that were trained on, repetitions included."""
    loss: float
    """On held-out text, in nats per token."""


@dataclass(frozen=True)
class Expected:
    """A value and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Forecast:
    """The loss that a law expects."""

    loss: Expected
    extrapolates: str | None
    """How far the question lies outside of what was measured; None if it does not."""


@dataclass(frozen=True)
class ScalingLaw:
    """A fitted law, with the laws that were fitted to losses whose errors were drawn again."""

    terms: tuple[str, ...]
    """The fitted terms: `parameters`, `tokens` and `power`."""
    points: tuple[Point, ...]
    constants: dict[str, Expected]
    """By their names in the form: E, A, a, B, b, g."""
    deviation: float
    """The typical difference between a point and the law, in nats."""
    _fits: Array = field(repr=False)

    def loss(self, parameters: float, tokens: float) -> Forecast:
        """The expected held-out loss of a training.

        Args:
            parameters: of the model, outside of embeddings and head.
            tokens: that it is trained on.
        """
        scaled = _scaled(self.points, np.array([parameters]), np.array([tokens]))
        found = [float(_losses(fit, scaled, self.terms)[0]) for fit in self._fits]
        return Forecast(_estimate(np.array(found)), self._extrapolation(parameters, tokens))

    def _extrapolation(self, parameters: float, tokens: float) -> str | None:
        said = []
        for name, asked in (("parameters", parameters), ("tokens", tokens)):
            known = [getattr(point, name) for point in self.points]
            if asked > max(known):
                said.append(f"{asked / max(known):.3g} times the most {name} that were measured")
            elif asked < min(known):
                said.append(f"1/{min(known) / asked:.3g} of the fewest {name} that were measured")
        return " and ".join(said) or None


def fit(points: Sequence[Point]) -> ScalingLaw:
    """Fit a law to measured trainings of one kind: on one text, with one tokenizer, by one teacher or none.

    The fit minimises a robust sum of squared differences of log losses from several starts. Intervals contain 95% of
    the fits to losses whose errors were drawn again (a residual bootstrap).

    Raises:
        UserError: the points cannot tell the constants of a law.
    """
    terms = _terms(points)
    parameters, tokens, losses = (np.array([getattr(one, name) for one in points]) for name in vars(points[0]))
    scaled = _scaled(points, parameters, tokens)
    best = min((_fitted(start, scaled, losses, terms) for start in _starts(losses, terms)), key=lambda found: found[1])[
        0
    ]
    deviation = float(np.sqrt(np.mean((_losses(best, scaled, terms) - losses) ** 2)))
    if deviation > MOST_NOISE * float(np.std(losses)) or _is_flat(best, terms):
        raise UserError(
            f"no law fits: the {len(points)} losses lie between {losses.min():.4f} and {losses.max():.4f} and do not "
            "follow tokens or parameters; add runs that differ more"
        )
    # The trainings stay what they are, and the law's errors change places: each fit can tell all constants.
    draw, expected = np.random.default_rng(SEED), _losses(best, scaled, terms)
    errors = np.log(losses / expected) * np.sqrt(len(points) / max(1, len(points) - len(best)))
    again = (expected * np.exp(draw.choice(errors, size=len(points))) for _ in range(RESAMPLES))
    fits = [best, *(_fitted(best, scaled, one, terms)[0] for one in again)]
    every = np.stack(fits)
    if np.mean([_is_flat(one, terms) for one in fits]) > MOST_UNSURE:
        raise UserError(
            f"the {len(points)} trainings follow several laws equally well; add runs with more tokens or parameters "
            "than these, or with fewer"
        )
    return ScalingLaw(terms, tuple(points), _constants(every, points, terms), deviation, every)


def teacher_rule(teacher: float, alone: float) -> str:
    """What the ratio of a teacher's loss to the loss that the student reaches alone says about the teacher.

    Args:
        teacher: the teacher's held-out loss.
        alone: the held-out loss of the control, in the same unit.
    """
    low, high = BEST_RATIO
    ratio = teacher / alone
    if ratio >= 1:
        said = "it has nothing to teach by this rule, beyond what noise in the text hides"
    elif ratio > high:
        said = "a better teacher may teach more"
    elif ratio >= low:
        said = "this is where the best teachers lie"
    else:
        said = "it may be too good: a teacher nearer to the student may teach as much"
    return (
        f"the teacher's loss is {ratio:.2f} of what the student reaches alone: {said}. The rule ({low:.2f} to "
        f"{high:.2f} is best) is computed from a law for web text, at a temperature of 1 and without cross-entropy. "
        "Most of its constants were not checked against its paper; take it as a hint, and try two teachers"
    )


def _terms(points: Sequence[Point]) -> tuple[str, ...]:
    """The terms that the points can tell.

    Raises:
        UserError: they can tell none.
    """
    if any(not np.isfinite(value) or value <= 0 for point in points for value in vars(point).values()):
        raise UserError("a training has no parameters, no tokens or no finite loss; leave its run out")
    for terms in (("parameters", "tokens", "power"), ("parameters", "tokens"), ("tokens",), ("parameters",)):
        if _identifies(points, terms):
            return terms
    sizes, lengths = _distinct(points, "parameters"), _distinct(points, "tokens")
    raise UserError(
        f"no law can be told from {_counted(len(points), 'training')} with {_counted(sizes, 'size')} and "
        f"{_counted(lengths, 'number')} of tokens; measure {FEWEST_PER_TERM} numbers of tokens at one size, "
        f"{FEWEST_PER_TERM} sizes at one number of tokens, or {FEWEST_FOR_BOTH} pairs of {FEWEST_SIZES} sizes and "
        f"{FEWEST_SIZES} numbers of tokens"
    )


def _identifies(points: Sequence[Point], terms: Sequence[str]) -> bool:
    sizes, lengths = _distinct(points, "parameters"), _distinct(points, "tokens")
    count = len({(point.parameters, point.tokens) for point in points})
    if "power" in terms:
        return count >= FEWEST_FOR_POWER and min(sizes, lengths) >= SIZES_FOR_POWER
    if len(terms) == 2:
        return count >= FEWEST_FOR_BOTH and min(sizes, lengths) >= FEWEST_SIZES
    varied, fixed = (lengths, sizes) if terms == ("tokens",) else (sizes, lengths)
    return varied >= FEWEST_PER_TERM and fixed == 1


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _distinct(points: Sequence[Point], name: str) -> int:
    return len({getattr(point, name) for point in points})


def _scaled(points: Sequence[Point], parameters: Array, tokens: Array) -> tuple[Array, Array]:
    """N and D as multiples of their geometric means, so that factors and exponents are told apart well."""
    middle = [np.exp(np.mean(np.log([getattr(one, name) for one in points]))) for name in ("parameters", "tokens")]
    return parameters / middle[0], tokens / middle[1]


def _losses(fit: Array, scaled: tuple[Array, Array], terms: Sequence[str]) -> Array:
    """The losses of a law. `fit` is log E, then log factor and log exponent of each term, then log g."""
    left: Array = np.zeros_like(scaled[0])
    by_name = dict(zip(("parameters", "tokens"), scaled, strict=True))
    for place, name in enumerate(one for one in terms if one != "power"):
        factor, exponent = fit[1 + 2 * place], np.exp(fit[2 + 2 * place])
        left = left + np.exp(factor - exponent * np.log(by_name[name]))
    power = np.exp(fit[-1]) if "power" in terms else 1.0
    return np.asarray(np.exp(fit[0]) + left**power)


def _fitted(start: Array, scaled: tuple[Array, Array], losses: Array, terms: Sequence[str]) -> tuple[Array, float]:
    from scipy.optimize import least_squares

    low, high = (np.array(_bounds(losses, terms, side)) for side in (0, 1))

    def differences(fit: Array) -> Array:
        return np.asarray(np.log(_losses(fit, scaled, terms)) - np.log(losses))

    found = least_squares(
        differences,
        np.clip(start, low, high),
        bounds=(low, high),
        loss="huber",
        f_scale=1e-2,
        max_nfev=MOST_EVALUATIONS,
    )
    return found.x, float(found.cost)


def _bounds(losses: Array, terms: Sequence[str], side: int) -> list[float]:
    least = float(losses.min())
    one = [(np.log(least * 1e-6), np.log(losses.max() * 1e3)), tuple(np.log(EXPONENTS))]
    pairs = [(np.log(least * 1e-3), np.log(least)), *(one * sum(name != "power" for name in terms))]
    pairs += [tuple(np.log(POWERS))] if "power" in terms else []
    return [float(pair[side]) for pair in pairs]


def _starts(losses: Array, terms: Sequence[str]) -> list[Array]:
    """Places from which the fit begins: the lowest of the minima found is taken."""
    least, spread = float(losses.min()), float(np.ptp(losses)) or 1e-3
    count = sum(name != "power" for name in terms)
    power = [0.0] if "power" in terms else []
    return [
        np.array([np.log(share * least), *[np.log(spread), np.log(exponent)] * count, *power])
        for share, exponent in product((0.3, 0.7, 0.95), (0.2, 0.5, 1.0))
    ]


def _is_flat(fit: Array, terms: Sequence[str]) -> bool:
    """Whether an exponent is at its bound: the factor and the exponent are then not told apart."""
    count = sum(name != "power" for name in terms)
    exponents = np.exp(fit[2 : 2 + 2 * count : 2])
    return bool(np.any(exponents < EXPONENTS[0] * 1.01) or np.any(exponents > EXPONENTS[1] * 0.99))


def _constants(fits: Array, points: Sequence[Point], terms: Sequence[str]) -> dict[str, Expected]:
    """The constants of the form in its own units, from those of the scaled N and D."""
    ones = _scaled(points, np.ones(1), np.ones(1))
    made = {"E": np.exp(fits[:, 0])}
    letters: dict[str, tuple[str, str, Callable[[], float]]] = {
        "parameters": ("A", "a", lambda: float(ones[0][0])),
        "tokens": ("B", "b", lambda: float(ones[1][0])),
    }
    for place, name in enumerate(one for one in terms if one != "power"):
        factor, exponent, unit = letters[name]
        made[exponent] = np.exp(fits[:, 2 + 2 * place])
        made[factor] = np.exp(fits[:, 1 + 2 * place] - made[exponent] * np.log(unit()))
    if "power" in terms:
        made["g"] = np.exp(fits[:, -1])
    return {name: _estimate(values) for name, values in made.items()}


def _estimate(values: Array) -> Expected:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Expected(float(values[0]), float(min(low, values[0])), float(max(high, values[0])))
