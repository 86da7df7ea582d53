"""Captured targets against the live teacher: the same recipe both ways, three seeds, on the quickstart's models.

`make experiment-captured` runs it and writes docs/experiments/captured.md; a second call runs only what is missing.
"""

import json
from pathlib import Path

from experiments.pages import write_page
from experiments.seeds import differences, table, with_spread
from potstill.cli.compare import comparison
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe

RUNS = Path("runs/experiments/captured")
PAGE = Path("docs/experiments/captured.md")
SEEDS = [0, 1, 2]
SHARED = [
    f"seeds={SEEDS}",
    "control=null",
    "corpus.train_tokens=50_800",
    "evaluate.documents=100",
    "distil.training.per_device_train_batch_size=16",
    "distil.training.save_steps=25",
]
VARIANTS = {
    "live teacher": ["capture=null"],
    "top-64 and tail, 8 bits": ["capture={keep: top_k, k: 64}"],
    "30 draws": ["capture={keep: sample, samples: 30}"],
}
METRICS = ("loss", "kl_to_teacher", "agreement")


def main() -> None:
    """Run every variant and write the page."""
    found = {}
    for name, overrides in VARIANTS.items():
        folder = RUNS / name.split()[0]
        run_recipe(load_recipe("quickstart", [*SHARED, *overrides]), Run(folder))
        rows = comparison([folder])
        capture = Run(folder).manifest("capture")
        stored = capture["summary"]["smollm2"]["bytes_per_token"] if capture else None
        students = {row["metric"]: row["seeds"]["values"] for row in rows if row["model"] == "student"}
        found[name] = {"bytes": stored, **{metric: students[metric] for metric in METRICS}}
    write_page(PAGE, page(found))


def page(found: dict[str, dict]) -> str:
    """The page, from each variant's bytes a token and each seed's metrics."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    rows = [
        (name, "–" if row["bytes"] is None else f"{row['bytes']:.0f}", *(with_spread(row[each]) for each in METRICS))
        for name, row in found.items()
    ]
    lines = table(("targets", "bytes a token", *(f"{metric}, mean ± sd" for metric in METRICS)), rows)
    lines += ["", "Difference from the live teacher, seed by seed (the same samples in the same order):", ""]
    lines += differences(found, "live teacher", METRICS)
    return head + "\n".join(lines) + "\n\n```json\n" + json.dumps(found) + "\n```\n"


if __name__ == "__main__":
    main()
