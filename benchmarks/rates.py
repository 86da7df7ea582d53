"""Tokens per second that one core writes to a store and reads from it, beside its rate of copying memory."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.aims import Measured
from benchmarks.run import Settings, say
from benchmarks.table import Table
from potstill.losses.teacher_target import LogitsTarget
from potstill.targets import Codec, Provenance, StoreSpec, StoreWriter, TargetStore, make_codec, sample_key
from potstill.targets.shard import ENTRY, ShardWriter

VOCABULARY, K, LENGTH, BATCH, DISTINCT = 49152, 64, 512, 8, 2048
READ, WRITE, COPY = "read: found, verified, into a batch", "write: checksums, records, index", "memory copied"

Timed = Iterator[tuple[str, int, float]]


def rates(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure reader and writer: the table, and the figures for the aims."""
    say("store: reader and writer")
    codec = make_codec("top_k", vocabulary=VOCABULARY, k=K)
    size = codec.layout.record_bytes
    corpus = _Corpus(codec, 64 if settings.quick else 512)
    seconds: dict[str, list[float]] = {}
    tokens: dict[str, int] = {}
    for _ in range(settings.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, count, took in corpus.round(Path(folder)):
                seconds.setdefault(name, []).append(took)
                tokens[name] = count
    table = Table(
        f"Rates of the default mode: one core, {size} B/token, samples of {LENGTH} tokens, batches of {BATCH}",
        ("what", "M tokens/s: median (best)", "GB/s"),
        f"Process time: waiting for the disk is not in it. {settings.rounds} rounds of {corpus.tokens:,} tokens. "
        f"Encoding is finding the {K} greatest of {VOCABULARY} logits; decoding happens on the student's device.",
    )
    measured = []
    for name, times in seconds.items():
        middle, best = tokens[name] / median(times[1:]) / 1e6, tokens[name] / min(times[1:]) / 1e6
        table.add(name, f"{middle:.3g} ({best:.3g})", f"{middle * size / 1e3:.2g}")
        if name in (READ, WRITE):
            measured.append(Measured("reader" if name == READ else "writer", middle, name))
    return [table], measured


class _Corpus:
    """Samples of random ids, and records for them."""

    def __init__(self, codec: Codec, samples: int) -> None:
        self.codec, self.samples, self.tokens = codec, samples, samples * LENGTH
        taught = np.ones(LENGTH, bool)
        ids = np.random.default_rng(0).integers(0, VOCABULARY, (samples, LENGTH))
        self.keys = [sample_key(row, row, taught) for row in ids]
        self.logits = torch.randn(DISTINCT, VOCABULARY).mul_(3)
        own = self._encode().numpy()
        self.records = np.ascontiguousarray(np.tile(own, (-(-self.tokens // DISTINCT), 1))[: self.tokens])

    def _encode(self) -> torch.Tensor:
        return self.codec.encode(LogitsTarget(self.logits), torch.full((DISTINCT,), 0.5, dtype=torch.float64))

    def round(self, folder: Path) -> Timed:
        """Do everything once. Yields what was done, the number of tokens, and the seconds."""
        yield WRITE, self.tokens, _seconds(lambda: self._write(folder))
        store = self._store(folder / "store")
        batches = [self.keys[first : first + BATCH] for first in range(0, self.samples, BATCH)]
        yield READ, self.tokens, _seconds(lambda: [store.packed(keys) for keys in batches])
        yield "read again: found, into a batch", self.tokens, _seconds(lambda: [store.packed(it) for it in batches])
        some = [store.packed(keys) for keys in batches[:8]]
        count = sum(len(packed) for packed in some)
        yield "decoded into a target", count, _seconds(lambda: [store.decode(packed) for packed in some])
        yield "encoded from logits", DISTINCT, _seconds(self._encode)
        yield COPY, self.tokens, _seconds(self.records.copy)

    def _write(self, folder: Path) -> None:
        """Write one shard with the whole corpus, in batches as a capture does."""
        planned = np.zeros(self.samples, ENTRY)
        planned["key"], planned["count"] = np.frombuffer(b"".join(self.keys), "V16"), LENGTH
        with ShardWriter(folder, 0, planned, self.codec.layout.record_bytes, BATCH) as shard:
            for first in range(0, self.tokens, BATCH * LENGTH):
                records = self.records[first : first + BATCH * LENGTH]
                shard.append(records, len(records) // LENGTH)

    def _store(self, folder: Path) -> TargetStore:
        counts = [LENGTH] * self.samples
        taken = iter(np.split(self.records, len(self.records) // (BATCH * LENGTH)))
        given = _AsGiven(self.codec, taken)
        with StoreWriter(
            StoreSpec(folder, self.codec, Provenance("random", "-", "-", "none")), self.keys, counts
        ) as writer:
            writer.codec = given  # type: ignore[assignment]
            for _ in writer.pending(BATCH):
                writer.write(LogitsTarget(self.logits))
        return TargetStore(folder, expect=None)


class _AsGiven:
    """A codec for the writer that returns records made before."""

    def __init__(self, codec: Codec, taken: Iterator[np.ndarray]) -> None:
        self.layout, self._taken = codec.layout, taken

    def encode(self, target: LogitsTarget, uniforms: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(next(self._taken))


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start
