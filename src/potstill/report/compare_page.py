"""One page that compares several runs: quality against speed and size, with a point for each model of each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from urllib.parse import quote

from potstill.metrics.results import Result
from potstill.metrics.speed import Speed
from potstill.report import cost_and_gain, number_format
from potstill.report.charts import HUES, Look
from potstill.report.data import Metric
from potstill.report.page import ICON

SIGN = "<b>potstill</b> · compare"
"""What each of these pages has, in its template."""


@dataclass(frozen=True)
class ComparedRun:
    """The evaluation of one run."""

    name: str
    rows: tuple[Result, ...]
    speed: Speed | None
    metric: Metric
    """The metric of quality."""


def render_comparison(runs: Sequence[ComparedRun]) -> str:
    """The whole page as a string; write it as UTF-8.

    Args:
        runs: at least one has points: a speed, and a teacher that is better than the start.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    colours = {run.name: Look(f"var(--s{place % HUES})") for place, run in enumerate(runs)}
    points = {run.name: _points(run, colours) for run in runs}
    metrics = list(dict.fromkeys(run.metric for run in runs))
    panels = [
        chart | {"svg": Markup(chart["svg"])}
        for metric in metrics
        for chart in cost_and_gain.charts(
            [one for run in runs if run.metric == metric for one in points[run.name]], metric
        )
    ]
    lines = [_line(run, one) for run in runs for one in points[run.name]]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    files = resources.files("potstill.report")
    template = environment.from_string(files.joinpath("compare.html").read_text(encoding="utf-8"))
    return template.render(
        title=" · ".join(run.name for run in runs),
        icon=quote(ICON),
        css=Markup(files.joinpath("page.css").read_text(encoding="utf-8")),
        panels=panels,
        runs={name: look.colour for name, look in colours.items()},
        left_out=[run.name for run in runs if not points[run.name]],
        devices=list(dict.fromkeys(run.speed.device for run in runs if run.speed is not None)),
        lines=lines,
    )


def has_points(run: ComparedRun) -> bool:
    """Whether a run has at least one model whose quality and speed are known."""
    return bool(_points(run, {run.name: Look("")}))


def _points(run: ComparedRun, colours: dict[str, Look]) -> list[cost_and_gain.GainPoint]:
    return [] if run.speed is None else cost_and_gain.points(run.rows, run.metric, run.speed, colours, run.name)


def _line(run: ComparedRun, one: cost_and_gain.GainPoint) -> dict[str, str]:
    share, low, high = one.quality
    shown = f"{share:.0%} [{low:.0%}, {high:.0%}]".replace("-", number_format.MINUS)
    return {
        "name": one.name,
        "colour": one.look.colour,
        "quality": shown,
        "metric": number_format.metric_name(run.metric),
        "speed": cost_and_gain.times(one.speed),
        "size": f"{one.size:.2f} ×",
    }
