"""Format numbers for readers: as many digits as the interval supports, a true minus sign, fitting units."""

import math
from collections.abc import Callable, Sequence

from potstill.metrics.results import Paired, Result, Spread
from potstill.recipe.candidates import Candidate
from potstill.report.data import LABELS, START, STUDENT, Metric, kind

MINUS = "\N{MINUS SIGN}"


def value(row: Result, metric: Metric) -> str:
    """A metric's value alone: 4.68, 53.2%, 98.4k."""
    return _number(row.value, metric, _decimals(row.low, row.high, metric))


def interval(row: Result, metric: Metric) -> str:
    """A value with its interval: 4.68 [4.60, 4.75]."""
    return _with_bounds(row.value, row.low, row.high, metric)


def bounds(ends: tuple[float, float], metric: Metric) -> str:
    """The ends of an interval: [4.60, 4.75]."""
    low, high = (_number(end, metric, _decimals(*ends, metric)) for end in ends)
    return f"[{low}, {high}]"


def forecast(found: Sequence[float], show: Callable[[float], str]) -> str:
    """A forecast with its ends: 2 min 05 s [1 min 40 s, 3 min 10 s]."""
    low, expected, high = map(show, found)
    return expected if low == high else f"{expected} [{low}, {high}]"


def difference(pair: Paired, metric: Metric) -> str:
    """A signed difference alone: −0.10, +2.1 points."""
    return signed(pair.difference, pair, metric)


def signed(number: float, pair: Paired, metric: Metric) -> str:
    """A difference with as many digits as ``pair``'s interval supports."""
    return _number(number, metric, _decimals(pair.low, pair.high, metric), signed=True).replace("%", " points")


def difference_bounds(pair: Paired, metric: Metric) -> str:
    """The ends of a difference's interval: [−0.12, −0.08]."""
    low, high = (signed(end, pair, metric).removesuffix(" points") for end in (pair.low, pair.high))
    return f"[{low}, {high}]"


def difference_interval(pair: Paired, metric: Metric) -> str:
    """A signed difference with its interval: −0.10 [−0.12, −0.08]."""
    text = _with_bounds(pair.difference, pair.low, pair.high, metric, signed=True)
    return text.replace("%", "") + (" points" if metric.percent else "")


def label(model: str) -> str:
    """What a model is called on its own: Student, Student base, Student before."""
    candidate = Candidate.from_label(model)
    if candidate.role == "baseline":
        return model
    return LABELS[candidate.role] if candidate.name is None else f"{LABELS[candidate.role]} {candidate.name}"


def inside(model: str) -> str:
    """A model's name inside a sentence: student, student base, student before."""
    return label(model)[:1].lower() + label(model)[1:] if kind(model) in LABELS else model


def minus(other: str, student: str = STUDENT) -> str:
    """The name of a difference: Student − control."""
    return f"{label(student)} {MINUS} {'before' if other == START else inside(other)}"


def metric_name(metric: Metric) -> str:
    """A metric's label inside a sentence: Loss becomes loss, KL stays KL."""
    first = metric.label.split(" ")[0]
    return metric.label if first.isupper() else metric.label[:1].lower() + metric.label[1:]


def listed(names: list[str]) -> str:
    """Names in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def probability(p: float) -> str:
    """A p with the precision of a bootstrap of some thousand draws: p = 0.034, p < 0.001."""
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return said.replace(" ", "\N{NO-BREAK SPACE}")


def spread(seeds: Spread, metric: Metric) -> str:
    """The range and deviation of seeds: 3 seeds: 4.66 to 4.69, sd 0.012."""
    decimals = _decimals(seeds.low, seeds.high, metric)
    low, high = (_number(bound, metric, decimals) for bound in (seeds.low, seeds.high))
    deviation = _number(seeds.deviation, metric, decimals + 1)
    return f"{seeds.n} seeds: {low} to {high}, sd {deviation}"


def count(number: int) -> str:
    """A count of parameters or tokens: 960, 102,400, 134.5M, 1.2B."""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:,}"


def energy(kwh: float) -> str:
    """Energy in a fitting unit: 12 mWh, 0.9 Wh, 1.2 kWh."""
    return _scaled(1000 * kwh, (("kWh", 1e3), ("Wh", 0.1), ("mWh", 1e-3)))


def carbon(kg: float) -> str:
    """A mass of CO2-equivalent in a fitting unit: 40 mg, 1.3 g, 2.0 kg."""
    return _scaled(1000 * kg, (("kg", 1e3), ("g", 0.1), ("mg", 1e-3)))


def _scaled(amount: float, units: tuple[tuple[str, float], ...]) -> str:
    unit, size = next((pair for pair in units if amount >= pair[1]), units[-1])
    scaled = amount / (1.0 if size == 0.1 else size)
    return f"{scaled:,.0f} {unit}" if scaled >= 99.5 else f"{scaled:.2g} {unit}"


def _with_bounds(middle: float, low: float, high: float, metric: Metric, signed: bool = False) -> str:
    decimals = _decimals(low, high, metric)
    middle_text, low_text, high_text = (_number(bound, metric, decimals, signed) for bound in (middle, low, high))
    return f"{middle_text} [{low_text}, {high_text}]"


def _decimals(low: float, high: float, metric: Metric) -> int:
    """Enough decimals for one digit of the interval's half-width, and at least one or two."""
    half = abs(high - low) / 2 * (100 if metric.percent else 1)
    shown = max(abs(low), abs(high)) * (100 if metric.percent else 1)
    least = 1 if metric.percent or shown >= 20 else 2
    if not math.isfinite(half) or half == 0:
        return least
    return min(6, max(least, -math.floor(math.log10(half)))) if shown < 1000 else 0


def _number(number: float, metric: Metric, decimals: int, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if metric.percent:
        text = f"{100 * number:{sign}.{decimals}f}%"
    elif abs(number) >= 1e6:
        text = f"{number:{sign}.2e}"
    elif abs(number) >= 1e4:
        text = f"{number / 1000:{sign}.1f}k"
    else:
        text = f"{number:{sign},.{decimals}f}"
    return text.replace("-", MINUS)
