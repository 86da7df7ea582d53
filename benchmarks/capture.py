"""Section `capture`: a capture over the teacher's own forward in its best batch; and the rates of keys and batches."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.aims import Measured
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import measure
from potstill.data.collators import Collator
from potstill.data.sample_rows import rows_at
from potstill.targets import Provenance, StoreSpec, make_codec
from potstill.targets.content_keys import contents
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.live import LiveTeacher

VOCABULARY, LENGTH, SAMPLES = 49152, 128, 16
BATCHES = (1, 2, 4, 8, 16)
CAPTURE = "capture"
CORPORA = ((128, 8192), (512, 2048))
"""The lengths and numbers of the samples whose keys are made, and that are collated."""
TOGETHER = 64
"""Samples that are collated into one batch."""
RATE = "M tokens/s: median (best)"


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure captures, keys and batches: the tables, and the figures for the aims."""
    ratios, found = _captures(settings)
    keys, of_keys = _keys(settings)
    batches, of_batches = _batches(settings)
    return [ratios, keys, batches], [*found, *of_keys, *of_batches]


def _captures(settings: Settings) -> tuple[Table, list[Measured]]:
    model = _teacher(settings)
    say("capture: over the teacher's forward")
    size = model.config.vocab_size
    rows = _samples(size, SAMPLES, LENGTH)
    ids = torch.tensor(np.array(rows["input_ids"])).to(settings.device)

    def forward(batch_size: int) -> None:
        with torch.no_grad():
            for part in ids.split(batch_size):
                model(part, use_cache=False)

    live, codec = LiveTeacher(model), make_codec("top_k", vocabulary=size)

    def captured() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = StoreSpec(Path(folder) / "store", codec, Provenance("random", "-", "-", "none"))
            capture(store, live, SampleBatches(rows, Collator(0), 16))

    forwards: dict[str, Callable[[], object]] = {f"forward, {n} at a time": lambda n=n: forward(n) for n in BATCHES}
    times = measure({CAPTURE: captured, **forwards}, settings.rounds, settings.device)
    best = times.fastest(list(forwards))
    table = Table(
        f"Capture: {SAMPLES} samples of {LENGTH} tokens, {model.config.num_hidden_layers} layers, V = {size}, top 64",
        ("what", "over the best forward: median (best)", "ms"),
        "A forward is the body and the logits of all tokens. A capture makes keys, collates, encodes and writes too.",
    )
    for name in (CAPTURE, *forwards):
        table.add(name, str(times.ratio(name, [best])), f"{times.median(name) * 1e3:.0f}")
    return table, [Measured("capture", times.ratio(CAPTURE, [best]), f"over `{best}`")]


def _teacher(settings: Settings) -> PreTrainedModel:
    """A random teacher in the shape of SmolLM2-135M."""
    small = {"hidden_size": 72, "intermediate_size": 144, "num_hidden_layers": 2, "vocab_size": 2048}
    whole = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": True}
    config = LlamaConfig(**(small if settings.quick else whole), **heads)
    return LlamaForCausalLM(config).eval().to(settings.device)


def _keys(settings: Settings) -> tuple[Table, list[Measured]]:
    say("capture: keys")
    table = Table("Keys of a corpus, one core", ("samples of", RATE), "")
    measured = []
    for name, rows in _corpora(settings):
        rate, best = _rate(rows, lambda rows=rows: contents(rows, Collator(0)), settings.rounds)
        table.add(name, f"{rate:.3g} ({best:.3g})")
        measured.append(Measured("keys", rate, f"samples of {name}"))
    return table, measured


def _batches(settings: Settings) -> tuple[Table, list[Measured]]:
    """The collator's rate, of the lists that a loader reads from a data set and of the arrays that a capture reads."""
    say("capture: collator")
    table = Table(
        f"Collator, batches of {TOGETHER} samples, one core",
        ("samples of", RATE),
        "Lists are what a loader reads from a data set, arrays what a capture reads. Reading them is not counted.",
    )
    measured = []
    for name, rows in _corpora(settings):
        for kind, samples in (("lists", list(rows)), ("arrays", rows_at(rows, range(len(rows))))):
            batches = [samples[first : first + TOGETHER] for first in range(0, len(samples), TOGETHER)]
            rate, best = _rate(rows, lambda batches=batches: [Collator(0)(one) for one in batches], settings.rounds)
            table.add(f"{name}, {kind}", f"{rate:.3g} ({best:.3g})")
            measured.append(Measured("collator", rate, f"{kind} of {name}"))
    return table, measured


def _corpora(settings: Settings) -> Iterator[tuple[str, Dataset]]:
    """Samples of each length, with their name in a table."""
    for length, samples in CORPORA:
        yield f"{length} tokens", _samples(VOCABULARY, samples // 16 if settings.quick else samples, length)


def _rate(rows: Dataset, work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Millions of tokens a second of this process's own time, of work over all rows: the median and the best round."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    tokens = len(rows) * len(rows[0]["input_ids"]) / 1e6
    # The first round is not counted.
    return tokens / median(seconds[1:]), tokens / min(seconds[1:])


def _samples(vocabulary: int, samples: int, length: int) -> Dataset:
    ids = np.random.default_rng(0).integers(0, vocabulary, (samples, length), np.int32)
    return Dataset.from_dict({"input_ids": ids}, Features({"input_ids": List(Value("int32"))}))
