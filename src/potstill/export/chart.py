"""Chart: the plot of a model card, a PNG file of the comparison by the main metric."""

import re

from potstill.report import charts
from potstill.report.cost_and_gain import main_metric
from potstill.report.data import Report, students
from potstill.report.tables import rows_of

COLOURS = {
    "ink": "#1d1c1a",
    "ink-2": "#5f5b54",
    "rule": "#e0dcd3",
    "teacher": "#57534e",
    "student": "#0b62a4",
    "control": "#b4530a",
    "start": "#77726a",
    **{
        f"s{place}": colour
        for place, colour in enumerate(("#0b62a4", "#97266d", "#17753c", "#6b46c1", "#007c89", "#8a6100", "#c2255c"))
    },
}
"""The page's light colours. A picture has no CSS variables, and stands on white."""
SCALE = 3.0


def chart(report: Report) -> bytes | None:
    """Each model's value of the main metric with its interval, as PNG. None if the models have no such metric."""
    import vl_convert

    metric = main_metric(report)
    if metric is None:
        return None
    svg = charts.intervals(metric, rows_of(report, metric), charts.looks_of(students(report)))
    coloured = re.sub(r"var\(--([\w-]+)\)", lambda found: COLOURS[found[1]], svg)
    on_white = re.sub(r"(<svg\b[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', coloured, count=1)
    png: bytes = vl_convert.svg_to_png(on_white, scale=SCALE)
    return png
