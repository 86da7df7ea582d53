"""Held-out text: each model's loss on it, its distance from the teachers, and passages for the report."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset, load_from_disk

from potstill.data.collators import Collator, pad_token_id
from potstill.data.row_teachers import TEACHERS
from potstill.evaluation.baselines import compared_vocabulary
from potstill.evaluation.candidate_models import Measurement, Models, pairs_to_compare
from potstill.evaluation.document_scores import (
    HeldOutBatches,
    TeacherReaders,
    fit_together,
    score_all,
    score_teachers_apart,
    sums_of,
)
from potstill.evaluation.span_passages import span_passages
from potstill.evaluation.taught_items import by_part, parts_of_items, taught_alone, told
from potstill.files.atomic import write_json
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.comparison import compare
from potstill.metrics.held_out_text import (
    METRICS,
    DocumentScores,
    OutputFunction,
    document_windows,
    log_probs,
    outputs_of,
)
from potstill.metrics.passages import piece, token_view
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import trained_candidates

PASSAGES = 2
"""Of one tokenizer."""
READABLE_TOKENS = range(60, 161)
"""The lengths, in tokens, of passages that the report shows whole."""


def measure(work: Work, models: Models) -> Measurement:
    """Score every model, compare the models, and save some passages for the report.

    Makes `scores/` (each model's sums by document) and `passages.json`.
    """
    recipe = work.recipe
    held_out = load_from_disk(work.run.path("corpus") / "held_out")
    held_out = held_out.select(range(min(len(held_out), recipe.evaluate.documents or len(held_out))))
    sizes = [len(text.encode()) for text in held_out["text"]]
    parts = parts_of_items(recipe, held_out[TEACHERS] if TEACHERS in held_out.column_names else ())
    windows = document_windows(held_out["input_ids"], recipe.corpus.sequence_length)
    text = HeldOutBatches(
        [{"input_ids": window.input_ids} for window in windows],
        [np.full(len(window.input_ids) - 1, window.document) for window in windows],
        sizes,
        Collator(pad_token_id(artifacts.tokenizer(work))),
        recipe.evaluate.batch_size,
        compared_vocabulary(work),
        parts,
    )
    one_tokenizer = crossing_loss(recipe) is None
    counterparts = {} if one_tokenizer else score_teachers_apart(work, models, list(held_out["text"]))
    readers = TeacherReaders(work, text, keep_states=not fit_together(work, models))
    scores = score_all(work, models, text, readers)
    pairs = pairs_to_compare(work, models)
    resampling = Resampling(recipe.evaluate.confidence, recipe.evaluate.resamples)
    taught = {name: [one if parts is None else taught_alone(one, parts) for one in own] for name, own in scores.items()}
    judged, metrics = by_part(taught, parts, readers.metrics(METRICS))
    rows, differences = compare(judged, pairs, metrics, sums_of(judged, one_tokenizer), resampling)
    passages = work.folder / "passages.json"
    # A passage shows the distance from a teacher, token by token, or span by span if the first teacher teaches it.
    whole = [n for n, ids in enumerate(held_out["input_ids"]) if len(ids) in READABLE_TOKENS]
    readable = [n for n in whole if len(held_out[n]["input_ids"]) <= recipe.corpus.sequence_length]
    shown = (
        _passages(work, readers, text, held_out, readable, scores[pairs[0][0]][0])
        if one_tokenizer
        else span_passages(work, held_out, [n for n in readable if parts is None or 0 in parts.numbers[n]], scores)
    )
    write_json(passages, shown)
    readers.close()
    tokens = int(scores["start"][0].tokens.sum())
    made = f"{sum(map(len, scores.values()))} models on {len(sizes):,} held-out documents"
    return Measurement(
        rows,
        differences,
        outputs=[passages, work.folder / "scores"],
        summary={"documents": len(sizes), "tokens": tokens, "made": made},
        more=told(parts) | ({"counterparts": counterparts} if counterparts else {}),
    )


def _passages(
    work: Work,
    readers: TeacherReaders,
    text: HeldOutBatches,
    held_out: Dataset,
    readable: Sequence[int],
    scores: DocumentScores,
) -> list[dict[str, Any]]:
    """The passages whose KL to the teacher is nearest to the median of all documents."""
    # A passage shows the distance of whole distributions, which a server does not tell.
    shows = [number for number, one in enumerate(artifacts.teachers(work)) if one.served is None]
    of_text = [shows] * len(held_out) if text.parts is None else text.parts.numbers
    shown_by = [next((number for number in own if number in shows), None) for own in of_text]
    readable = [n for n in readable if shown_by[n] is not None]
    if not readable:
        return []
    kl = scores.kl / np.maximum(scores.tokens, 1)
    tokenizer = artifacts.teachers(work)[0].tokenizer()
    # A token that is only a part of a character cannot be shown as text, so other documents come first.
    broken = {n: any("\ufffd" in piece(tokenizer, token) for token in held_out[n]["input_ids"]) for n in readable}
    typical = sorted(readable, key=lambda n: (broken[n], abs(kl[n] - np.median(kl))))[:PASSAGES]
    teachers = list(readers.by_name.values())
    student = outputs_of(artifacts.trained_model(work, trained_candidates(work.recipe)[0]))
    shown = []
    for n in typical:
        ids = held_out[n]["input_ids"]
        batch = text.batch([{"input_ids": ids}])
        teacher = cast(OutputFunction, teachers[cast(int, shown_by[n])])
        with torch.no_grad():
            theirs, ours = (log_probs(read(batch), text.vocabulary) for read in (teacher, student))
        shown.append({"title": f"held-out document {n}", "tokens": token_view(theirs, ours, tokenizer, ids)})
    return shown
