"""Section `alignment`: where two tokenizations of the same text stand at the same byte, on one core."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.aims import Measured
from benchmarks.corpus import boolq_passages
from benchmarks.run import Settings, say
from benchmarks.table import Table
from potstill.data.aligned_texts import text_reading
from potstill.data.token_alignment import TextAxis, align
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import train_tokenizer
from potstill.recipe.tokenizer import TrainedTokenizer

MERGE = "spans and pairs of two readings"


QUICK, WHOLE = (200, (512, 1024)), (8000, (4096, 16384))
"""The number of passages, and the sizes of the two tokenizers."""


def readers(texts: Sequence[str], sizes: Sequence[int]) -> list[TokenBytes]:
    """Tokenizers of these sizes, trained on the texts."""
    return [TokenBytes(train_tokenizer(texts, TrainedTokenizer(vocab_size=size)), f"{size:,} tokens") for size in sizes]


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure the alignment: the table, and the figure for the aim."""
    passages, sizes = QUICK if settings.quick else WHOLE
    texts = boolq_passages()[:passages]
    ours, theirs = readers(texts, sizes)
    axis = TextAxis.of([text.encode() for text in texts])
    read, of_theirs = ours.read(texts), theirs.read(texts)
    readings = [text_reading(axis, one) for one in (read, of_theirs)]
    tokens = len(readings[0].ends)
    work: Mapping[str, Callable[[], object]] = {
        "bytes of each token, tokenizer included": lambda: ours.read(texts),
        "bytes of each token, from its ids": lambda: [
            ours.ends(text, one.ids) for text, one in zip(texts, read, strict=True)
        ],
        MERGE: lambda: align(axis, *readings),
    }
    table = Table(
        f"Alignment: one core, {len(texts):,} passages",
        ("what", "M tokens/s: median (best)"),
        f"Process time. Tokenizers of {sizes[0]:,} and {sizes[1]:,} tokens; rates are of the {tokens:,} tokens of the "
        f"first alone. It changes {sum(bool(one.lost_bytes) for one in read):,} of the passages, which are tokenized "
        "again for their offsets in the first two rows. In a run, the collator tokenizes and aligns the text of each "
        "batch, so all of this is a part of the steps under `Steps across tokenizers`.",
    )
    measured = []
    for name, run in work.items():
        say(f"alignment: {name}")
        times = [_seconds(run) for _ in range(settings.rounds + 1)][1:]
        middle, best = tokens / median(times) / 1e6, tokens / min(times) / 1e6
        table.add(name, f"{middle:.3g} ({best:.3g})")
        if name == MERGE:
            measured.append(Measured("alignment", middle, name))
    return [table], measured


def _seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began
