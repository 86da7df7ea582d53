"""What is done to a capture from a server: it is killed, compared with another one, and timed beside a plain loop."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from potstill.pipeline.run_folder import Run
from potstill.targets import TargetStore
from potstill.targets.shard import read_index

MOMENT = 0.05


@dataclass(frozen=True)
class Apart:
    """How far the targets of two stores of the same samples lie apart."""

    same_ids: float
    """The share of entries with the same token in the same rank."""
    mean: float
    largest: float
    """The differences of log-probabilities of the same token in the same rank, in nats."""
    mean_tail: float
    """The mean difference of the mass of all other tokens."""
    records: float
    """The share of records with other bytes."""


def keys_of(store: Path) -> list[bytes]:
    """The keys of a store's samples, in its order."""
    header = TargetStore(store, expect=None).header
    return [key for shard in range(header.shards) for key in read_index(store, shard)["key"].tolist()]


def apart(one: Path, other: Path) -> dict[str, float]:
    """How far the targets of two stores of the same samples lie apart (:class:`Apart`)."""
    keys, stores = keys_of(one), [TargetStore(place, expect=None) for place in (one, other)]
    packed = [store.packed(keys) for store in stores]
    first, second = (store.decode(each) for store, each in zip(stores, packed, strict=True))
    same = first.ids == second.ids
    differences = (first.log_probs - second.log_probs).abs()[same & first.log_probs.isfinite()]
    tails = (first.log_tail.exp() - second.log_tail.exp()).abs()
    other_bytes = (packed[0] != packed[1]).any(-1).float().mean()
    return asdict(
        Apart(
            float(same.float().mean()),
            float(differences.mean()),
            float(differences.max()),
            float(tails.mean()),
            float(other_bytes),
        )
    )


def bytes_of(store: Path, pattern: str = "*.records") -> int:
    """The bytes of a store's records."""
    return sum(file.stat().st_size for file in store.glob(pattern))


def differing_files(one: Path, other: Path) -> list[str]:
    """The names of the files in which two stores differ."""
    names = {file.name for store in (one, other) for file in store.iterdir() if file.suffix != ".lock"}

    def content(store: Path, name: str) -> bytes | None:
        return (store / name).read_bytes() if (store / name).exists() else None

    return sorted(name for name in names if content(one, name) != content(other, name))


def kill_at(run: Run, store: Path, overrides: Sequence[str], least: int) -> int:
    """Begin a capture in a process of its own, and kill it as soon as its records have so many bytes.

    Returns:
        The bytes that it left.
    """
    command = [sys.executable, "-m", "potstill", "capture", "quickstart", "--run-dir", str(run.folder)]
    command += [part for each in overrides for part in ("--set", each)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while bytes_of(store) < least:
            if process.poll() is not None:
                assert process.stderr is not None
                raise RuntimeError(f"the capture ended before it could be killed: {process.stderr.read().decode()}")
            time.sleep(MOMENT)
        process.kill()
    return bytes_of(store)


def tokens_a_second(url: str, key: str, rows: Sequence[Sequence[int]], k: int, at_once: int) -> float:
    """The tokens that a server scores in a second for a client that throws the answers away."""
    began = time.perf_counter()
    asyncio.run(_ask_all(url, key, [{"prompt": [*row], "prompt_logprobs": k} for row in rows], at_once))
    return sum(map(len, rows)) / (time.perf_counter() - began)


async def _ask_all(url: str, key: str, bodies: Sequence[dict[str, Any]], at_once: int) -> None:
    places = asyncio.Semaphore(at_once)
    fixed = {"model": "smollm2", "max_tokens": 1, "temperature": 0}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:

        async def ask(body: dict[str, Any]) -> None:
            async with places, session.post(f"{url}/v1/completions", json=fixed | body) as answer:
                answer.raise_for_status()
                await answer.read()

        await asyncio.gather(*map(ask, bodies))
