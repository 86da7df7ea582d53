"""A teacher behind vLLM beside the same teacher here: what its students learn, what is asked of it, and how fast.

`make experiment-served` runs it and writes docs/experiments/served.md; a second call runs only what is missing.
`python -m experiments.served --quick` rehearses it in minutes, and writes no page.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import load_from_disk

from experiments.measured import measured
from experiments.pages import write_page
from experiments.seeds import differences, table, with_spread
from experiments.served_capture import apart, bytes_of, differing_files, kill_at, tokens_a_second
from experiments.sharing import beside
from potstill.console import size
from potstill.data.collators import Collator
from potstill.files.atomic import read_json, remove, write_json
from potstill.metrics.results import Result
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe
from potstill.recipe.candidates import trained_candidates
from potstill.targets import StoreSpec
from potstill.targets.header import read_header
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.prepared import PreparedTeacher
from servers.real_servers import KEY, RealServer, vllm_server

RUNS = Path("runs/experiments/served")
PAGE = Path("docs/experiments/served.md")
VLLM = Path(".venv-servers/bin/vllm").absolute()
KEY_VARIABLE = "SERVED_EXPERIMENT_KEY"
METRICS = ("loss", "kl_to_teacher", "agreement")
SHARED = {
    "seeds": [0, 1, 2],
    "precision": "fp32",
    "evaluate.speed": False,
    "distil.training.per_device_train_batch_size": 4,
    "distil.training.save_steps": 16,
}
QUICK = {"seeds": [0, 1], "corpus.train_tokens": 1270, "evaluate.documents": 6}
CAPTURE = {"keep": "top_k", "k": 64, "batch_size": 4}
LIVE, HERE, SERVED, CONTROL = "live", "captured here", "captured from vLLM", "control"
TRAINED = ("capture", "distil", "control", "evaluate", "report")
"""The folders that a run with the same teacher and corpus makes itself."""
KILLS = 10
ROUNDS = 3
AT_ONCE = 16


@dataclass
class Found:
    """What the page tells; a part that was not run yet is empty."""

    server: dict[str, Any] = field(default_factory=dict)
    """Its version and noise, its traffic, the seconds of the capture, and how far its targets lie from those here."""
    killed: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, list[float]] = field(default_factory=dict)
    """Tokens a second, of each round."""
    models: dict[str, list[float]] = field(default_factory=dict)
    """Of the teacher and the start: each metric."""
    students: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Of each way to be taught, by metric, the value of each seed."""


class Parts:
    """The runs of the experiment.

    Args:
        root: their folder.
        more: overrides of every recipe.
    """

    def __init__(self, root: Path, more: Mapping[str, Any]) -> None:
        self._root, self._shared = root, SHARED | more
        start = Run(root / "start")
        run_recipe(load_recipe("quickstart", _set(self._shared | {"capture": None, "control": None})), start, "student")
        self.weights = Path(PreparedTeacher.load(start.path("teachers") / "smollm2").source)
        self._shared["student"] = {"start": "checkpoint", "model": str((start.path("student") / "start").absolute())}

    def _run(self, name: str, of_server: tuple[str, ...] = TRAINED) -> Run:
        """A run; those that ask the server share what they know of it."""
        base = Run(self._root / "vllm")
        return base if name == "vllm" else beside(base, self._root / name, of_server)

    def _here(self, **more: Any) -> list[str]:
        return _set(self._shared | {"capture": CAPTURE, "control": None} | more)

    def _served(self, server: RealServer | None, at_once: int = AT_ONCE) -> list[str]:
        """The recipe of a student whose teacher is behind a server, at any address if it is not asked any more."""
        url = "http://127.0.0.1:8000" if server is None else server.url
        given = {"server": f"{url}/v1", "model": "smollm2", "api": "vllm", "key": KEY_VARIABLE, "top_k": 64}
        given |= {"tokenizer": str(self.weights.absolute()), "concurrency": at_once}
        return self._here(teachers={"smollm2": given})

    def capture(self, server: RealServer) -> dict[str, Any]:
        """Capture here and from the server."""
        here, there = Run(self._root / "here"), self._run("vllm")
        run_recipe(load_recipe("quickstart", self._here()), here, "capture")
        run_recipe(load_recipe("quickstart", self._served(server)), there, "capture")
        met, asked = there.manifest("teachers"), there.manifest("capture")
        assert met is not None
        assert asked is not None
        facts, own = met["summary"]["smollm2"]["served"], asked["summary"]["smollm2"]
        targets = apart(here.path("capture") / "smollm2", there.path("capture") / "smollm2")
        return {**facts, **own, "seconds": asked["cost"]["seconds"], "apart": targets}

    def kill(self, server: RealServer) -> dict[str, Any]:
        """Kill a capture ten times and let it go on; one request at a time, so that the server always adds alike."""
        kept = self._root / "killed.json"
        if not kept.exists():
            given = self._served(server, at_once=1)
            whole, cut = self._run("whole"), self._run("killed")
            run_recipe(load_recipe("quickstart", given), whole, "capture")
            first, second = (run.path("capture") / "smollm2" for run in (whole, cut))
            total = bytes_of(first)
            at = [kill_at(cut, second, given, total * number // (KILLS + 1)) for number in range(1, KILLS + 1)]
            run_recipe(load_recipe("quickstart", given), cut, "capture")
            batched = apart(first, self._run("vllm").path("capture") / "smollm2")
            found = {"at": at, "total": total, "differing": differing_files(first, second), "batched": batched}
            write_json(kept, found)
        return dict(read_json(kept))

    def time(self, server: RealServer) -> dict[str, list[float]]:
        """Time a capture beside a plain loop of the same requests, in turns."""
        kept = self._root / "speed.json"
        if not kept.exists():
            samples = load_from_disk(self._run("vllm").path("corpus") / "train")
            rows = [row["input_ids"] for row in samples]
            speed: dict[str, list[float]] = {"capture": [], "plain": []}
            for _ in range(ROUNDS):
                speed["capture"].append(sum(map(len, rows)) / self._seconds_of_capture(server, samples))
                speed["plain"].append(tokens_a_second(server.url, KEY, rows, CAPTURE["k"], AT_ONCE))
            write_json(kept, speed)
        return dict(read_json(kept))

    def _seconds_of_capture(self, server: RealServer, samples: Any) -> float:
        run, folder = self._run("vllm"), self._root / "timed"
        given = load_recipe("quickstart", self._served(server)).teachers["smollm2"]
        header = read_header(run.path("capture") / "smollm2")
        remove(folder)
        teacher = PreparedTeacher.load(run.path("teachers") / "smollm2", server=given).beside(header.codec.vocabulary)
        began = time.perf_counter()
        capture(StoreSpec(folder, header.codec, header.provenance), teacher, SampleBatches(samples, Collator(0), 4))
        seconds = time.perf_counter() - began
        remove(folder)
        return seconds

    def train(self) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
        """Train every student and the control, and judge all of them together."""
        others = {"here": (Run(self._root / "here"), self._here()), "vllm": (self._run("vllm"), self._served(None))}
        models = {}
        for name, (run, given) in others.items():
            recipe = run_recipe(load_recipe("quickstart", given), run, "distil")
            for one in trained_candidates(recipe):
                models[f"{name}-{one.seed}"] = str((run.path(one.step) / "student").absolute())
        live = self._here(capture=None, control={}, **{"evaluate.models": models})
        run = Run(self._root / "live")
        run_recipe(load_recipe("quickstart", live), run)
        return judged(measured(run)[0])


def _set(overrides: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def judged(rows: Sequence[Result]) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """What the evaluation of the live run says: each metric of teacher and start, and of each student and seed."""
    fixed: dict[str, list[float]] = {}
    students: dict[str, dict[str, list[float]]] = {}
    ways = {"student": LIVE, "control": CONTROL, "here": HERE, "vllm": SERVED}
    for row in rows:
        way = ways.get(row.model.partition("-")[0])
        if row.metric not in METRICS:
            continue
        if way is None:
            fixed.setdefault(row.model, []).append(row.value)
        else:
            values = students.setdefault(way, {}).setdefault(row.metric, [])
            values += [row.value] if row.seeds is None else row.seeds.values
    return fixed, {way: students[way] for way in ways.values() if way in students}


def main() -> None:
    """Run every part, and write the page after each."""
    quick = sys.argv[1:] == ["--quick"]
    os.environ[KEY_VARIABLE] = KEY
    parts, found = Parts(RUNS / ("quick" if quick else "runs"), QUICK if quick else {}), Found()
    with vllm_server(parts.weights, program=VLLM) as server:
        found.server = parts.capture(server)
        write_page(PAGE, page(found), rehearsed=quick)
        found.speed = parts.time(server)
        write_page(PAGE, page(found), rehearsed=quick)
        found.killed = parts.kill(server)
        write_page(PAGE, page(found), rehearsed=quick)
    found.models, found.students = parts.train()
    write_page(PAGE, page(found), rehearsed=quick)


def page(found: Found) -> str:
    """The page, from what was found so far."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    parts = {
        "What the students learn": _of_students(found),
        "What the server was asked": _of_server(found.server),
        "A capture that is killed": _of_kills(found.killed),
        "Speed": _of_speed(found.speed),
    }
    missing = ["This part was not run yet. The command goes on with it when it is called again."]
    lines = [line for title, part in parts.items() for line in (f"## {title}", "", *(part or missing), "")]
    return head + "\n".join(lines)


def _of_students(found: Found) -> list[str]:
    if not found.students:
        return []
    rows = [(name, *(f"{value:.4f}" for value in values)) for name, values in found.models.items()]
    rows += [(way, *(with_spread(of[each]) for each in METRICS)) for way, of in found.students.items()]
    return [
        *table(("model", *METRICS), rows),
        "",
        "Difference from the live teacher's students, seed by seed:",
        "",
        *differences(found.students, LIVE, METRICS),
        "",
        "Difference of the two captures' students, seed by seed:",
        "",
        *differences({way: found.students[way] for way in (HERE, SERVED)}, HERE, METRICS),
    ]


def _of_server(server: Mapping[str, Any]) -> list[str]:
    if not server:
        return []
    traffic, noise, targets = server["traffic"], server["noise"], server["apart"]
    read = traffic["tokens_read"]
    rows = [
        ("vLLM", str(server["version"])),
        ("requests, those of the checks included", f"{traffic['requests']:,}"),
        ("sent again", f"{traffic['repeated']:,}"),
        ("tokens read", f"{read:,}"),
        ("received", f"{size(traffic['bytes_received'])}, {traffic['bytes_received'] / read:,.0f} bytes a token"),
        ("kept of it in the store", f"{server['bytes_per_token']:.0f} bytes a token"),
        ("capture, from its begin to its end", f"{server['seconds']:.0f} s"),
        ("noise: asked twice, mean and largest difference", f"{noise['mean']:.2g} and {noise['largest']:.2g} nats"),
        ("same token in the same rank as captured here", f"{targets['same_ids']:.3%}"),
        ("log-probabilities, mean and largest difference", f"{targets['mean']:.2g} and {targets['largest']:.2g} nats"),
        ("mass of all other tokens, mean difference", f"{targets['mean_tail']:.2g}"),
    ]
    return table(("", ""), rows)


def _of_kills(killed: Mapping[str, Any]) -> list[str]:
    if not killed:
        return []
    shares = ", ".join(f"{at / killed['total']:.0%}" for at in killed["at"])
    differing, batched = killed["differing"], killed["batched"]
    same = "the same bytes in every file" if not differing else f"other bytes in {', '.join(differing)}"
    return [
        f"A capture with one request at a time was killed {len(killed['at'])} times (SIGKILL), when it had written",
        f"{shares} of its records. It went on each time, and ended with **{same}** as one that was never killed.",
        "",
        f"With {AT_ONCE} requests at a time, the server reads rows together and adds them up otherwise. Then",
        f"{batched['records']:.2%} of the records have other bytes than with one request at a time; their",
        f"log-probabilities, which are stored in 8 bits, differ by {batched['mean']:.2g} nats on average and by",
        f"{batched['largest']:.2g} at most.",
    ]


def _of_speed(speed: Mapping[str, Sequence[float]]) -> list[str]:
    if not speed:
        return []
    ratios = [ours / theirs for ours, theirs in zip(speed["capture"], speed["plain"], strict=True)]
    names = {"capture": "potstill: asks, checks, reads and stores", "plain": "a loop that throws the answers away"}
    rows = [
        (names[name], f"{statistics.median(values):,.0f}", ", ".join(f"{value:,.0f}" for value in values))
        for name, values in speed.items()
    ]
    return [
        *table(("client", "tokens/s, median", "each round"), rows),
        "",
        f"Both send the same requests, {AT_ONCE} at a time, in turns. The capture reaches",
        f"**{statistics.median(ratios):.2f}** of the loop (each round: {', '.join(f'{one:.2f}' for one in ratios)}).",
        "`vllm bench serve` cannot send such requests: it asks for streams, and vLLM gives no log-probabilities of a",
        "prompt in a stream.",
    ]


if __name__ == "__main__":
    main()
