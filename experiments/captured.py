"""Captured targets against the live teacher: the same recipe both ways, three seeds, on the quickstart's models.

`make experiment-captured` runs it and writes docs/experiments/captured.md; what is done already is not done again.
"""

import json
import statistics
from pathlib import Path

from potstill.files import write_text
from potstill.recipe import load_recipe
from potstill.run import Run
from potstill.runner import run_recipe
from potstill.status import comparison

RUNS = Path("runs/experiments/captured")
PAGE = Path("docs/experiments/captured.md")
SEEDS = [0, 1, 2]
SHARED = [
    f"seeds={SEEDS}",
    "control=null",
    "corpus.train_tokens=51_200",
    "evaluate.documents=100",
    "distil.training.save_steps=25",
]
VARIANTS = {
    "live teacher": ["capture=null"],
    "top-64 and tail, 8 bits": ["capture={keep: top_k, k: 64}"],
    "30 draws": ["capture={keep: sample, samples: 30}"],
}
METRICS = ("loss", "kl_to_teacher", "agreement")


def main() -> None:
    """Run every variant, and write what came out."""
    found = {}
    for name, overrides in VARIANTS.items():
        folder = RUNS / name.split()[0]
        run_recipe(load_recipe("quickstart", [*SHARED, *overrides]), Run(folder))
        rows = comparison([folder])
        capture = Run(folder).manifest("capture")
        stored = capture["summary"]["smollm2"]["bytes_per_token"] if capture else None
        students = {row["metric"]: row["seeds"]["values"] for row in rows if row["model"] == "student"}
        found[name] = {"bytes": stored, **{metric: students[metric] for metric in METRICS}}
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    write_text(PAGE, page(found))
    print(f"written: {PAGE}")


def page(found: dict[str, dict]) -> str:
    """The page, from each variant's bytes a token and each seed's metrics."""
    live = found["live teacher"]
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    lines = [f"| targets | bytes a token | {' | '.join(f'{metric}, mean ± sd' for metric in METRICS)} |"]
    lines.append("|---" * (2 + len(METRICS)) + "|")
    for name, row in found.items():
        cells = [f"{statistics.mean(row[m]):.4f} ± {statistics.stdev(row[m]):.4f}" for m in METRICS]
        stored = "–" if row["bytes"] is None else f"{row['bytes']:.0f}"
        lines.append(f"| {name} | {stored} | {' | '.join(cells)} |")
    columns = ("targets", "metric", "each seed", "mean", "95% interval", "sd between live seeds", "within it")
    lines += ["", "Difference from the live teacher, seed by seed (the same samples in the same order):", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, row in found.items():
        for metric in METRICS if name != "live teacher" else ():
            each = [ours - theirs for ours, theirs in zip(row[metric], live[metric], strict=True)]
            half = T_975[len(each) - 1] * statistics.stdev(each) / len(each) ** 0.5
            mean, spread = statistics.mean(each), statistics.stdev(live[metric])
            shown = ", ".join(f"{value:+.4f}" for value in each)
            within = "yes" if abs(mean) <= spread else "**no**"
            interval = f"[{mean - half:+.4f}, {mean + half:+.4f}]"
            lines.append(f"| {name} | {metric} | {shown} | {mean:+.4f} | {interval} | {spread:.4f} | {within} |")
    return head + "\n".join(lines) + "\n\n```json\n" + json.dumps(found) + "\n```\n"


T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t at 97.5%, by degrees of freedom."""

if __name__ == "__main__":
    main()
