"""A small corpus, a teacher whose logits depend only on the sample, and a store of its targets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.models.head import Head
from potstill.targets import Codec, HiddenCodec, Provenance, StoreSpec, StoreWriter, TopKCodec, sample_key

VOCABULARY, HIDDEN = 61, 8
PROVENANCE = Provenance("toy", "revision 1", "tokenizer 1", "none")


@dataclass(frozen=True)
class Corpus:
    ids: list[np.ndarray]
    supervised: list[np.ndarray]

    @property
    def keys(self) -> list[bytes]:
        return [sample_key(ids, ids, taught) for ids, taught in zip(self.ids, self.supervised, strict=True)]

    @property
    def counts(self) -> list[int]:
        return [int(taught.sum()) for taught in self.supervised]

    def logits(self, place: int) -> Tensor:
        seed = torch.Generator().manual_seed(int.from_bytes(self.keys[place][:4], "little"))
        return 4 * torch.randn(self.counts[place], VOCABULARY, generator=seed)

    def hidden(self, place: int) -> Tensor:
        return self.logits(place)[:, :HIDDEN].bfloat16()

    def target(self, places: np.ndarray, codec: Codec) -> LogitsTarget | HiddenTarget:
        if isinstance(codec, HiddenCodec):
            return HiddenTarget(torch.cat([self.hidden(place) for place in places]), HEAD)
        return LogitsTarget(torch.cat([self.logits(place) for place in places]))


HEAD = Head(torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(0)), scale=0.5, softcap=20.0)


def make_corpus(samples: int = 40, seed: int = 0) -> Corpus:
    random = np.random.default_rng(seed)
    ids = [random.integers(0, VOCABULARY, random.integers(2, 20)) for _ in range(samples)]
    supervised = [random.random(len(row)) < 0.7 for row in ids]
    return Corpus(ids + ids[:3], supervised + supervised[:3])


def write_store(
    folder: Path, corpus: Corpus, codec: Codec | None = None, batch_size: int = 4, worker: int = 0, workers: int = 1
) -> Path:
    codec = codec or TopKCodec(VOCABULARY, 8)
    head = HEAD if isinstance(codec, HiddenCodec) else None
    with StoreWriter(
        StoreSpec(folder, codec, PROVENANCE), corpus.keys, corpus.counts, head, samples_per_shard=16
    ) as writer:
        for places in writer.pending(batch_size, worker, workers):
            writer.write(corpus.target(places, codec))
    return folder


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return make_corpus()


@pytest.fixture
def store(tmp_path: Path, corpus: Corpus) -> Path:
    return write_store(tmp_path / "store", corpus)


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_store


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    return folder_bytes


@pytest.fixture
def provenance() -> Provenance:
    return PROVENANCE


@pytest.fixture
def head() -> Head:
    return HEAD
