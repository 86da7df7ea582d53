"""Live: a run at work, as a page that asks for news by itself, or as a view of the terminal."""

from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import quote

from rich.console import Group
from rich.table import Table
from rich.text import Text

from potstill.console import duration, size
from potstill.report import number_format
from potstill.report.page import ICON, environment

MARKS = {"done": "✓", "running": "▸", "stopped": "■", "left": "·"}
STYLES = {"done": "green", "running": "bold", "stopped": "yellow", "left": "dim"}
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40
"""Characters of a curve in the terminal."""
STATES = {
    "running": "running",
    "done": "done",
    "stopped": "stopped; the same command goes on from here",
    "killed": "ended without a word {ago} ago; the same command goes on from here",
    "waiting": "does not run; the same command goes on from here",
}


def page(name: str) -> str:
    """The page of a run; it asks `state.json` beside it every two seconds."""
    from markupsafe import Markup

    files = {kind: Markup(_file(f"live.{kind}")) for kind in ("css", "js")}
    css = Markup(_file("page.css")) + files["css"]
    return environment().get_template("live.html").render(name=name, icon=quote(ICON), css=css, js=files["js"])


def _file(name: str) -> str:
    return resources.files("potstill.report").joinpath(name).read_text(encoding="utf-8")


def terminal_view(run: Mapping[str, Any]) -> Group:
    """The run, as `pipeline.live.LiveRun.to_dict` tells it."""
    return Group(
        Text.assemble((run["name"], "bold"), f"  {run['about']}"), Text(_headline(run)), _steps(run), *_curves(run)
    )


def _headline(run: Mapping[str, Any]) -> str:
    said = [STATES[run["state"]].format(ago=duration(run["silent"] or 0.0))]
    if run["seconds_left"] is not None:
        said.append(f"about {duration(run['seconds_left'])} left")
    if run["tokens_per_second"] is not None:
        said.append(f"{run['tokens_per_second']:,.0f} tokens/s")
    if run["memory"] is not None:
        said.append(f"{size(run['memory'])} of memory")
    if run["kwh"] is not None:
        said.append(number_format.energy(run["kwh"]))
    return " · ".join(said)


def _steps(run: Mapping[str, Any]) -> Table:
    table = Table("", "step", "", "time", "forecast", "energy", box=None, header_style="dim", pad_edge=False)
    for step in run["steps"]:
        progress = "" if step["of"] is None or step["state"] == "done" else f"{step['done']:,} of {step['of']:,} steps"
        cells = (
            MARKS[step["state"]],
            step["name"],
            progress or step["made"],
            "" if step["seconds"] is None else duration(step["seconds"]),
            "" if step["forecast"] is None else duration(step["forecast"]),
            "" if step["kwh"] is None else number_format.energy(step["kwh"]),
        )
        # Not as markup: what a step made may have brackets.
        table.add_row(*map(Text, cells), style=STYLES[step["state"]])
    return table


def _curves(run: Mapping[str, Any]) -> list[Text]:
    """The figures that more than one training logs, or else the loss, a line for each training."""
    by_term: dict[str, list[Mapping[str, Any]]] = {}
    for curve in run["curves"]:
        for term in curve["terms"]:
            by_term.setdefault(term, []).append(curve)
    terms = [term for term in by_term if term not in ("learning_rate", "loss")] or ["loss"]
    term = max(terms, key=lambda name: len(by_term.get(name, ())))
    lines = []
    for curve in by_term.get(term, ()):
        values = [value for _, value in curve["terms"][term]]
        seed = "" if curve["seed"] is None else f" (seed {curve['seed']})"
        lines.append(Text(f"{term} {curve['model']}{seed}: {_bars(values)} {values[-1]:.4g}"))
    return lines


def _bars(values: list[float]) -> str:
    """A curve as a row of bars; each is the mean of some neighbours."""
    each = -(-len(values) // WIDTH)
    means = [sum(group) / len(group) for at in range(0, len(values), each) if (group := values[at : at + each])]
    low, high = min(means), max(means)
    return "".join(BARS[round((mean - low) / (high - low or 1.0) * (len(BARS) - 1))] for mean in means)
