"""Training steps from captured targets, over the best cross-entropy step. Reading the store is part of a step."""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.aims import Measured
from benchmarks.checking import check, fill, passed
from benchmarks.models import Pair
from benchmarks.peers import LIGER_KERNEL
from benchmarks.peers import peers as peers_of_losses
from benchmarks.problem import Problem
from benchmarks.reference import Checker, spread_evenly
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import Action, measure
from benchmarks.variants import COMPILED, OURS, Variant, ours
from potstill.data.collators import Collator
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget, SparseTarget
from potstill.models.head import Head
from potstill.targets import Provenance, StoreSpec, StoreWriter, TargetStore, TopKCodec
from potstill.targets.collator import TargetCollator, records_column
from potstill.targets.content_keys import contents

LOSSES = (Loss("forward_kl", 0.5), Loss("cross_entropy", 0.5))
CE = (Loss("cross_entropy"),)
K, TEACHER_WIDTH, BATCHES = 64, 64, 8

Samples = list[dict[str, list[int]]]


def captured_steps(pair: Pair, settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure steps from a store: the table, and the figures for the aims."""
    say(f"step from captured targets: {pair.title}")
    with tempfile.TemporaryDirectory() as folder:
        samples = write_store(Path(folder) / "store", pair)
        return _measured(pair, settings, Path(folder) / "store", samples)


def write_store(folder: Path, pair: Pair) -> Samples:
    """Random samples for the pair, and a store with a random teacher's targets of them.

    Reading these costs as much as reading a real teacher's.
    """
    vocabulary = pair.shape.vocabulary
    ids = torch.randint(0, vocabulary, (BATCHES * pair.shape.rows, pair.shape.length))
    samples = [{"input_ids": row.tolist()} for row in ids]
    found = contents(samples, Collator(0))
    # On a GPU, which would wait for a minute while a CPU computes these targets.
    head = Head(torch.randn(vocabulary, TEACHER_WIDTH, device=pair.device) * 4 / TEACHER_WIDTH**0.5)
    spec = StoreSpec(folder, TopKCodec(vocabulary, K), Provenance("random", "-", "-", "none"))
    with StoreWriter(spec, found.keys, found.counts) as writer:
        for places in writer.pending(4):
            hidden = torch.randn(int(found.counts[places].sum()), TEACHER_WIDTH, device=pair.device)
            writer.write(HiddenTarget(hidden, head))
    return samples


class Reader:
    """Reads the samples in order. Each variant has its own, so that each reads every record a first time."""

    def __init__(self, pair: Pair, folder: Path, samples: Samples, with_targets: bool) -> None:
        self.store, self.device = TargetStore(folder, expect=None), pair.device
        self.collate: Any = TargetCollator(Collator(0), {0: self.store}) if with_targets else Collator(0)
        rows = pair.shape.rows
        self._turns: Iterator[int] = cycle(range(0, len(samples), rows))
        self._samples, self._rows = samples, rows

    def next(self) -> tuple[dict[str, Tensor], SparseTarget | None]:
        """The next batch, and its decoded targets; None without a store."""
        first = next(self._turns)
        batch = self.collate(self._samples[first : first + self._rows])
        batch = {name: value.to(self.device) for name, value in batch.items()}
        packed = batch.pop(records_column(0), None)
        if packed is None:
            return batch, None
        target = self.store.decode(packed)
        assert isinstance(target, SparseTarget)
        return batch, target


def _measured(pair: Pair, settings: Settings, folder: Path, samples: Samples) -> tuple[list[Table], list[Measured]]:
    reader = partial(Reader, pair, folder, samples)
    batch, target = reader(True).next()
    assert target is not None
    problem = pair.captured_problem(batch, target)
    checked = check([ours(LOSSES, False), ours(LOSSES, True), *peers()], Checker(problem))
    actions: dict[str, Action] = {f"CE: {name}": step for name, step in _ce_steps(pair, reader(False)).items()}
    scales = list(actions)
    for variant in passed(checked):
        actions[variant.name] = partial(_step, pair, variant, reader(True))
    times = measure(actions, settings.rounds, settings.device)
    best = times.fastest(scales)
    table = Table(
        f"Step from captured targets, forward KL + CE, {pair.title}",
        ("variant", "over the best CE step: median (best)", "ms", "worst relative error"),
        f"Top {K} and exact tail. Over `{best}`, {times.median(best) * 1e3:.0f} ms; {settings.rounds} rounds. Both "
        "sides collate; captured ones find, verify and decode their records too, in the same thread.",
    )
    fill(table, checked, times, [best])
    if COMPILED not in times.seconds:
        return [table], []
    key = f"captured, {'bf16' if pair.autocast else 'fp32'}"
    return [table], [Measured(key, times.ratio(COMPILED, [best]), f"top {K}")]


def _ce_steps(pair: Pair, reader: Reader) -> dict[str, Action]:
    found: dict[str, Action] = {
        "Hugging Face": lambda: pair.hugging_face_step(reader.next()[0]),
        OURS: lambda: pair.our_step(CE, False, reader.next()[0]),
        COMPILED: lambda: pair.our_step(CE, True, reader.next()[0]),
    }
    for variant in peers_of_losses(CE, pair.device):
        if variant.name == LIGER_KERNEL:
            found[variant.name] = lambda variant=variant: pair.peer_step(variant, reader.next()[0])
    return found


def _step(pair: Pair, variant: Variant, reader: Reader) -> None:
    batch, target = reader.next()
    if variant.name in (OURS, COMPILED):
        pair.our_step(LOSSES, variant.name == COMPILED, batch, target)
    else:
        pair.peer_step(variant, batch, target)


def peers() -> list[Variant]:
    """Other ways to learn from the same records. The check must refuse those that lose the tail."""
    return [
        Variant("scattered to a dense target", LOSSES, scattered, spread=True),
        Variant("DistillKit's sparse loss, re-stated", LOSSES, sparse_with_tail),
        Variant("the same, missing mass as zero", LOSSES, truncated),
        Variant("top-k renormalised", LOSSES, renormalised),
    ]


def _student(problem: Problem) -> tuple[Tensor, SparseTarget]:
    assert problem.captured is not None
    return (problem.hidden @ problem.weight.T).float(), problem.captured


def scattered(problem: Problem) -> Tensor:
    """The naive loss against a dense teacher, made of the records with the tail spread evenly."""
    logits, target = _student(problem)
    log_q = spread_evenly(target, logits.shape[1])
    divergence = F.kl_div(logits.log_softmax(-1), log_q, reduction="batchmean", log_target=True)
    return 0.5 * divergence + 0.5 * F.cross_entropy(logits, problem.labels)


def _kept_log_probs(logits: Tensor, target: SparseTarget) -> Tensor:
    return logits.gather(1, target.ids) - logits.logsumexp(-1, keepdim=True)


def sparse_with_tail(problem: Problem) -> Tensor:
    """KL over the kept ids and, as one more outcome, the mass of all other ids."""
    logits, target = _student(problem)
    log_p, log_q = _kept_log_probs(logits, target), target.log_probs
    kept = (log_q.exp() * (log_q - log_p)).sum(-1)
    p_rest = (1 - log_p.exp().sum(-1)).clamp_min(1e-8)
    q_rest = (1 - log_q.exp().sum(-1)).clamp_min(1e-8)
    divergence = (kept + q_rest * (q_rest.log() - p_rest.log())).mean()
    return 0.5 * divergence + 0.5 * F.cross_entropy(logits, problem.labels)


def truncated(problem: Problem) -> Tensor:
    """KL without the missing mass. It is negative where the student gives the kept ids more mass: no divergence."""
    logits, target = _student(problem)
    log_p, log_q = _kept_log_probs(logits, target), target.log_probs
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    return 0.5 * divergence + 0.5 * F.cross_entropy(logits, problem.labels)


def renormalised(problem: Problem) -> Tensor:
    """KL from a teacher whose kept tokens are renormalised to 1."""
    logits, target = _student(problem)
    log_p, log_q = _kept_log_probs(logits, target), target.log_probs.log_softmax(-1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    return 0.5 * divergence + 0.5 * F.cross_entropy(logits, problem.labels)
