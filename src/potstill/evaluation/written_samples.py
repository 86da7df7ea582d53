"""Written samples: what students wrote while they were trained on-policy, for the report."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.passages import piece
from potstill.on_policy.evidence import PREFLIGHT, ROLLOUTS
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.candidates import Candidate
from potstill.report.data import Curve, ReportedRollouts, ShownRollout

SHOWN = 4
"""Answers from the beginning of a training, and as many from its end."""


def on_policy_trainings(work: Work, name_on_page: Callable[[str], str]) -> tuple[ReportedRollouts, ...]:
    """What each student wrote in the training of the first seed; students that wrote nothing are left out."""
    candidates = [Candidate("student", name, work.recipe.seeds[0]) for name in work.recipe.variants]
    folders = {one: work.run.path(one.step) for one in candidates}
    wrote = {one: folder for one, folder in folders.items() if (folder / ROLLOUTS).is_file()}
    if not wrote:
        return ()
    tokenizer = artifacts.tokenizer(work)
    return tuple(_training(folder, name_on_page(one.label), one.seed or 0, tokenizer) for one, folder in wrote.items())


def _training(folder: Path, model: str, seed: int, tokenizer: Any) -> ReportedRollouts:
    rows = sorted(read_jsonl(folder / ROLLOUTS), key=lambda row: row["step"])
    early = min(SHOWN, (len(rows) + 1) // 2)
    late = min(SHOWN, len(rows) - early)
    preflight = read_json(folder / PREFLIGHT)
    return ReportedRollouts(
        Curve.of_written(model, seed, read_jsonl(folder / "log.jsonl")),
        tuple((row["step"], tuple(row.get("reverse_kl") or ())) for row in rows),
        tuple(_answer(row, tokenizer) for row in rows[:early]),
        tuple(_answer(row, tokenizer) for row in rows[len(rows) - late :]),
        "" if preflight is None else preflight["sentence"],
    )


def _answer(row: Mapping[str, Any], tokenizer: Any) -> ShownRollout:
    # A policy gradient's teacher gives one number for each token, and no KL.
    kl = row.get("reverse_kl") or [None] * len(row["ids"])
    return ShownRollout(
        row["step"],
        row["written_at"],
        tokenizer.decode(row["prompt_ids"]),
        tuple((piece(tokenizer, token), value) for token, value in zip(row["ids"], kl, strict=True)),
        row["stopped"],
    )
