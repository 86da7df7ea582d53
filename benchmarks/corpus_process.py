"""One measurement of the section `corpus`: `python -m benchmarks.corpus_process HOW TEACHER FILE FOLDER`.

Prints one line of JSON: the seconds, and the peak of memory above the start.
"""

import json
import os
import sys
import time
from pathlib import Path

from transformers import AutoTokenizer

from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe.load import load_recipe
from potstill.recipe.step import Step
from potstill.stages import corpus

PROCESSES = 2


def main(how: str, teacher: str, file: str, folder: str) -> None:
    """Measure potstill's corpus or `datasets.map`, and print the figures."""
    os.sched_setaffinity(0, range(PROCESSES))
    work = _work(teacher, file, Path(folder)) if how == "potstill" else None
    if work is None:
        from datasets import load_dataset

        rows = load_dataset("json", data_files=file, split="train", cache_dir=folder)
        tokenizer = AutoTokenizer.from_pretrained(teacher)
    before, began = _mebibytes("VmRSS"), time.perf_counter()
    if work is None:
        rows.map(
            lambda batch: tokenizer(batch["text"]), batched=True, num_proc=PROCESSES, remove_columns=rows.column_names
        )
    else:
        corpus.run(work)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "mebibytes": _mebibytes("VmHWM") - before}))


def _work(teacher: str, file: str, folder: Path) -> Work:
    """The step of a run whose earlier steps are done."""
    settings = {
        "corpus.sources": [{"path": file}],
        "corpus.separator": None,
        "corpus.train_tokens": None,
        "teachers": {"smollm2": {"model": teacher}},
        "student.layers": 1,
        "precision": "fp32",  # the runner decides `auto`, and here one stage runs without it
    }
    recipe = load_recipe("quickstart", [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    run, step = Run(folder / "run"), Step("corpus")
    run_recipe(recipe, run, until="teachers")
    run.path(step).mkdir(parents=True, exist_ok=True)
    return Work(recipe, run, step)


def _mebibytes(name: str) -> float:
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
