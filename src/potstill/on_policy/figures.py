"""Figures: what the log of a training says about its rollouts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from potstill import distributed
from potstill.on_policy.rollouts import Rollout

LOGGED_SCORES = {"entropy": "entropy", "kl": "reverse_kl", "overlap": "overlap"}
"""By their names in the log: the figures for each token whose mean over the scored tokens is logged. The losses of
written samples are logged under their own names, as means over all of their tokens."""


class StepFigures:
    """The figures of the rollouts of all steps since the last log. Each rank counts its own; the log has those of all.

    Args:
        device: where the model is trained. The time of a part of the work is known when the device has done it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Begin again, after a log."""
        self.seconds = {"write": 0.0, "score": 0.0, "step": 0.0}
        self._rollouts: list[tuple[int, bool, int]] = []
        self._of_last_step = 0
        self._written = self._trained = 0
        self._lost_bytes = self._bytes = 0
        self._scores: dict[str, list[Tensor]] = {name: [] for name in LOGGED_SCORES}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to a part of the work: `write`, `score`, or `step`, which is the whole."""
        begin = self._now()
        try:
            yield
        finally:
            self.seconds[part] += self._now() - begin

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def add(self, rollouts: Sequence[Rollout], step: int) -> None:
        """Count the rollouts of a step, those that are dropped too."""
        self._of_last_step = len(rollouts)
        self._rollouts += [(len(one.ids), one.finished, step - one.written_at) for one in rollouts]
        self._written += sum(len(one.ids) for one in rollouts if one.written_at == step)

    def add_trained(self, tokens: int) -> None:
        """Count the tokens of rollouts that are learned."""
        self._trained += tokens

    def add_text(self, lost: int, total: int) -> None:
        """Count the bytes of rollouts, and those of them that a teacher of another tokenizer cannot read."""
        self._lost_bytes, self._bytes = self._lost_bytes + lost, self._bytes + total

    def add_scores(self, scores: Mapping[str, Tensor]) -> None:
        """Keep the figures of some tokens, as far as they are told."""
        for name, score in LOGGED_SCORES.items():
            if score in scores:
                self._scores[name].append(scores[score].float())

    def last_length(self) -> float:
        """The mean length of the last step's rollouts in tokens."""
        return _mean([length for length, _, _ in self._rollouts[-self._of_last_step :]])

    def last_entropy(self) -> float | None:
        """The mean entropy of the last scored tokens in nats; None before any is scored."""
        return self._scores["entropy"][-1].mean().item() if self._scores["entropy"] else None

    def _sums(self) -> dict[str, float]:
        """The same names on every rank, to be added up."""
        found: dict[str, float] = {
            "rollouts": len(self._rollouts),
            "length": sum(length for length, _, _ in self._rollouts),
            "stopped": sum(finished for _, finished, _ in self._rollouts),
            "age": sum(age for _, _, age in self._rollouts),
            "written": self._written,
            "trained": self._trained,
            "lost bytes": self._lost_bytes,
            "bytes": self._bytes,
            **self.seconds,
        }
        for name, several in self._scores.items():
            values = torch.cat(several) if several else torch.zeros(0)
            found |= {name: values.double().sum().item(), f"tokens with {name}": len(values)}
        return found

    def as_log(self) -> dict[str, float]:
        """The logged figures by name; none where no rank had a rollout. All ranks call this together."""
        ranks = distributed.gathered(self._sums())
        total = {name: sum(one[name] for one in ranks) for name in ranks[0]}
        if not total["rollouts"]:
            return {}
        # Ranks work at the same time.
        write, score, step = (total[part] / len(ranks) for part in ("write", "score", "step"))
        train = step - score
        found = {
            **{name: total[name] / total["rollouts"] for name in ("length", "stopped", "age")},
            "tokens": total["trained"],
            **({"lost_text": total["lost bytes"] / total["bytes"]} if total["bytes"] else {}),
            **{
                name: total[name] / total[f"tokens with {name}"]
                for name in LOGGED_SCORES
                if total[f"tokens with {name}"]
            },
            "time_writing": write / max(write + score + train, 1e-9),
            **({"written_per_second": total["written"] / write} if total["written"] and write else {}),
            **({"scored_per_second": total["trained"] / score} if score else {}),
            **({"trained_per_second": total["trained"] / train} if train else {}),
        }
        return {f"on_policy/{name}": value for name, value in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
