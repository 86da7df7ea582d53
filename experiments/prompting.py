"""Prompting strategies side by side: on sums with a small teacher that is good at them, and on GSM8K with real models.

`make experiment-prompting` runs it and writes docs/experiments/prompting.md; a second call runs only what is missing.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.measured import differences, interval, measured, models, outcome
from experiments.pages import write_page
from potstill.metrics.results import Paired, Result, holm
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe

RUNS = Path("runs/experiments/prompting")
PAGE = Path("docs/experiments/prompting.md")
METRICS = ("accuracy", "loss", "hit_limit", "no_number")
ABOUT = {
    "arithmetic": "Sums of four or five digits, every step of the way; the teacher is trained here, the student has "
    "half of its layers; three seeds.",
    "gsm8k-mini": "GSM8K's own questions; SmolLM2-135M teaches a LoRA adapter of itself; one seed. So small a model "
    "answers hardly any question, and the loss on the reference solutions says more.",
}
"""The recipes of this experiment, each with its sentence on the page."""


def main() -> None:
    """Run everything and write the page."""
    found = {}
    for name in ABOUT:
        run = Run(RUNS / name)
        run_recipe(load_recipe(name), run)
        found[name] = measured(run)
    write_page(PAGE, page(found))


def page(found: dict[str, tuple[list[Result], list[Paired]]]) -> str:
    """The page, from the measurements of each recipe's run."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    lines: list[str] = []
    for name, (rows, pairs) in found.items():
        lines += [f"## `{name}`", "", ABOUT[name], "", *claims(pairs), "", *models(rows, METRICS), ""]
        lines += ["On the same questions:", "", *differences(pairs, METRICS), ""]
    return head + "\n".join(lines).rstrip() + "\n"


def claims(pairs: Sequence[Paired]) -> list[str]:
    """Each student against fine-tuning and against the placebo, with p after Holm's correction for all students, which
    decides."""
    lines = []
    for metric in ("accuracy", "loss"):
        of_metric = [pair for pair in pairs if pair.metric == metric and pair.b != "start"]
        corrected = holm({pair.a: pair.p for pair in of_metric if pair.b == "control"})
        for pair in of_metric:
            what = "fine-tuning" if pair.b == "control" else f"the placebo ({pair.b})"
            p, of_all = (corrected[pair.a], " corrected") if pair.b == "control" else (pair.p, "")
            told = outcome(pair) if pair.too_few or p < 0.05 else "no different beyond chance"
            difference = interval(pair.difference, pair.low, pair.high)
            lines.append(f"- {pair.a} against {what}, {metric}: **{told}** ({difference}, p = {p:.3f}{of_all}).")
    return lines


if __name__ == "__main__":
    main()
