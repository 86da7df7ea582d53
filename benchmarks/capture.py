"""Section `capture`: a capture over the teacher's own forward in its best batch; and the rate of making keys."""

import tempfile
import time
from collections.abc import Callable
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
from potstill.targets import Provenance, StoreSpec, make_codec
from potstill.targets.content_keys import contents
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.live import LiveTeacher

VOCABULARY, LENGTH, SAMPLES = 49152, 128, 16
BATCHES = (1, 2, 4, 8, 16)
CAPTURE = "capture"
KEYS = ((128, 8192), (512, 2048))
"""The lengths and numbers of the samples whose keys are made."""


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure captures and keys: the tables, and the figures for the aims."""
    ratios, found = _captures(settings)
    keys, rates = _keys(settings)
    return [ratios, keys], [*found, *rates]


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
    table = Table("Keys of a corpus, one core", ("samples of", "M tokens/s: median (best)"), "")
    measured = []
    for length, samples in KEYS:
        rows = _samples(VOCABULARY, samples // 16 if settings.quick else samples, length)
        seconds = []
        for _ in range(settings.rounds + 1):
            start = time.process_time()
            contents(rows, Collator(0))
            seconds.append(time.process_time() - start)
        rate, best = (len(rows) * length / 1e6 / took for took in (median(seconds[1:]), min(seconds)))
        table.add(f"{length} tokens", f"{rate:.3g} ({best:.3g})")
        measured.append(Measured("keys", rate, f"samples of {length} tokens"))
    return table, measured


def _samples(vocabulary: int, samples: int, length: int) -> Dataset:
    ids = np.random.default_rng(0).integers(0, vocabulary, (samples, length), np.int32)
    return Dataset.from_dict({"input_ids": ids}, Features({"input_ids": List(Value("int32"))}))
