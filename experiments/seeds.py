"""Statistics over seeds: means, spreads, and differences between two variants whose seeds see the same samples."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t at 97.5%, by degrees of freedom."""

Figures = Mapping[str, Sequence[float]]
"""By metric, the value of each seed."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def with_spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def half_width(differences: Sequence[float]) -> float:
    """Half of the 95% interval of the mean of some seeds' differences, by Student's t."""
    return T_975[len(differences) - 1] * statistics.stdev(differences) / len(differences) ** 0.5


def differences(variants: Mapping[str, Figures], base: str, metrics: Sequence[str]) -> list[str]:
    """The differences of every variant from the base, seed by seed, as a table.

    Two columns say whether a difference is noise: whether its interval holds zero, and whether it lies within the
    base's own spread between seeds. The interval covers chance in the trainings, and not in the held-out text."""
    rows = []
    for name, figures in variants.items():
        for metric in metrics if name != base else ():
            each = [ours - theirs for ours, theirs in zip(figures[metric], variants[base][metric], strict=True)]
            half = half_width(each)
            mean, spread = statistics.mean(each), statistics.stdev(variants[base][metric])
            interval = f"[{mean - half:+.4f}, {mean + half:+.4f}]"
            within = "yes" if abs(mean) <= spread else "**no**"
            shown = ", ".join(f"{value:+.4f}" for value in each)
            beyond = "**yes**" if abs(mean) > half else "no"
            rows.append((name, metric, shown, f"{mean:+.4f}", interval, beyond, f"{spread:.4f}", within))
    columns = ("variant", "metric", "each seed", "mean", "95% interval over seeds", "beyond zero")
    columns += (f"sd between seeds of {base}", "within it")
    return table(columns, rows)
