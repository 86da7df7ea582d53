"""Inspect targets: the contents of a store, whether it is whole, and its distance from its teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk

from potstill.console import progress, size
from potstill.data.collators import Collator, pad_token_id
from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from potstill.data.row_teachers import TEACHERS
from potstill.device import device
from potstill.errors import UserError
from potstill.losses.span_likelihood import TokenNumbers
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget, SparseTarget
from potstill.pipeline.document_texts import DOCUMENTS, document_blocks
from potstill.pipeline.precision import with_precision
from potstill.pipeline.run_folder import Run
from potstill.pipeline.span_captures import end_of_turns, turns_of_teacher
from potstill.pipeline.training_data import taught_by
from potstill.recipe.load import saved_recipe
from potstill.recipe.step import SAVED_AS, Step
from potstill.targets import TargetStore, describe, fidelity
from potstill.targets.codecs.registry import CrossingCodec
from potstill.targets.codecs.spans import SpanCodec, SpanNumbers
from potstill.targets.codecs.turns import TurnCodec
from potstill.targets.content_keys import batch_keys
from potstill.targets.fidelity import Fidelity, SpanFidelity, span_fidelity
from potstill.teachers.capture_spans import read_blocks
from potstill.teachers.capture_turns import numbers_of_turns
from potstill.teachers.live import LiveTeacher
from potstill.teachers.prepared import PreparedTeacher

AT_ONCE = 16
"""The rows that the teacher reads at the same time."""


def inspect(folder: Path, samples: int) -> dict[str, Any]:
    """Describe a store, check every byte of it, and compare it with its teacher on some of its samples.

    Args:
        folder: the store. For the comparison, it must lie in its run folder, `RUN/capture/[SAMPLE_SET/]TEACHER`.
        samples: the number of samples to compare; 0 leaves the comparison out.

    Raises:
        UserError: the folder is no store, the store is damaged, or it lies in no run folder.
    """
    found = describe(folder)
    whole = found["samples_written"] == found["samples"]
    there = f"{found['samples_written']:,} of {found['samples']:,} samples"
    found["state"] = "finished" if whole else f"unfinished: {there}"
    found |= _taught(folder)
    if whole:
        store = TargetStore(folder, expect=None)
        with progress("checking", found["shards"], "shards") as advance:
            for _ in store.verify():
                advance(1)
        found["checksums"] = "all right"
        if samples:
            measure = {SpanCodec: measure_spans, TurnCodec: measure_turns}.get(type(store.codec), measure_fidelity)
            found["fidelity"] = vars(measure(store, folder, samples))
    return found


def _place(folder: Path) -> tuple[Path, Path, str]:
    """A store's whole path, the folder of its run (or what is above it), and the name of its sample set, or nothing."""
    place = folder.resolve()
    run = next((parent for parent in place.parents if (parent / SAVED_AS).is_file()), place.parent)
    # The place is RUN/capture/TEACHER; with questions, RUN/capture/STRATEGY/own/TEACHER.
    return place, run, "/".join(place.relative_to(run).parts[1:-1])


def _corpus_of(run: Path) -> str:
    """The stage that made the samples of a run's trainings."""
    return taught_by(saved_recipe(run)) if (run / SAVED_AS).is_file() else "corpus"


def _taught(folder: Path) -> dict[str, Any]:
    """Which of all samples a teacher teaches, and which of their tokens a server told, where it is not all of them."""
    place, run, of_set = _place(folder)
    manifest = Run(run).manifest(Step("capture", name=of_set or None)) if (run / SAVED_AS).is_file() else None
    own = {} if manifest is None else manifest["summary"].get(place.name, {})
    found = {}
    if "samples_in_all" in own:
        found["teaches"] = f"{own['samples']:,} of {own['samples_in_all']:,} samples, as `when` says"
    if "told" in own:
        found["told"] = f"{own['told']:,} of {own['tokens']:,} tokens, which the server wrote"
    return found


def _teacher(folder: Path, corpus: Path) -> PreparedTeacher:
    """The teacher of a store, which lies in a run folder with the samples or documents of the corpus."""
    place, run, _ = _place(folder)
    teachers = [run / "teachers" / place.name, run / "pretrain" / place.name / "model"]
    teacher_folder = next((each for each in teachers if each.is_dir()), None)
    if teacher_folder is None or not corpus.is_dir():
        raise UserError(
            f"{folder} lies in no run folder with its teacher and its corpus, so there is nothing to compare it with; "
            "give `--fidelity 0` to leave the comparison out"
        )
    precision = with_precision(saved_recipe(run), Run(run)).precision
    prepared = PreparedTeacher.load(teacher_folder, place.name, precision)
    if prepared.is_elsewhere:
        raise UserError(
            f"teacher {place.name!r} is behind a server, so there is nothing here to compare with; give `--fidelity 0` "
            "to leave the comparison out"
        )
    return prepared


def measure_spans(store: TargetStore, folder: Path, blocks: int) -> SpanFidelity:
    """The distance of the store's numbers from the live teacher's, on blocks that are spread over its documents."""
    _, run, _ = _place(folder)
    corpus = run / "corpus"
    prepared = _teacher(folder, corpus / DOCUMENTS)
    documents = document_blocks(corpus, prepared)
    count = len(documents.blocks.keys)
    places = np.arange(0, count, max(count // blocks, 1))[:blocks]
    live = read_blocks(LiveTeacher(prepared.model()), documents, places, AT_ONCE)
    stored = store.read([key.tobytes() for key in documents.blocks.keys[places]])
    assert isinstance(stored, SpanNumbers)
    return span_fidelity(TokenNumbers(live.log_p, live.log_mass), TokenNumbers(stored.log_p, stored.log_mass))


def measure_turns(store: TargetStore, folder: Path, samples: int) -> SpanFidelity:
    """The same of a store of turns or answers, on samples that are spread over its corpus."""
    _, run, of_set = _place(folder)
    rows = load_from_disk(run / (f"strategies/{of_set}/train" if of_set else "corpus/train"))
    prepared, recipe = _teacher(folder, run / "corpus"), saved_recipe(run)
    number, end = [*recipe.teachers].index(folder.resolve().name), end_of_turns(recipe, prepared)
    turns = turns_of_teacher(rows, prepared, number, end)
    chosen = range(0, len(turns.samples), max(len(turns.samples) // samples, 1))[:samples]
    some = replace(turns, samples=[turns.samples[at] for at in chosen])
    live = numbers_of_turns(LiveTeacher(prepared.model()), some, len(chosen))
    stored = store.read([key.tobytes() for key in some.contents.keys])
    assert isinstance(stored, TokenNumbers)
    return span_fidelity(live, stored)


def measure_fidelity(store: TargetStore, folder: Path, samples: int) -> Fidelity:
    """The distance of the store's targets from the live teacher's, on samples that are spread over its corpus."""
    assert not isinstance(store.codec, CrossingCodec)
    place, run, of_set = _place(folder)
    corpus = run / (f"strategies/{of_set}/train" if of_set else f"{_corpus_of(run)}/train")
    prepared = _teacher(folder, corpus)
    rows = load_from_disk(corpus)
    if TEACHERS in rows.column_names:  # a store has the samples of its own teacher
        rows = rows.filter(lambda names: place.name in names, input_columns=TEACHERS).remove_columns(TEACHERS)
    pad = pad_token_id(prepared.tokenizer())
    # Placebos have other answers. The keys prove that the targets belong to these samples.
    apart = "teacher_input_ids" in rows.column_names
    collate = AlignedCollator(pad, same_answer=False) if apart else Collator(pad)
    teacher = LiveTeacher(prepared.model(), store.codec.vocabulary)
    places = range(0, len(rows), max(len(rows) // samples, 1))[:samples]
    batch = {name: value.to(device()) for name, value in collate([rows[at] for at in places]).items()}
    live = teacher.target(teacher_batch(batch))
    temperature = getattr(store.codec, "temperature", None) or getattr(store.codec, "temperatures", (1.0,))[0]
    stored = store.read(batch_keys(batch), temperature=temperature, device=device())
    assert isinstance(live, LogitsTarget | HiddenTarget)
    assert isinstance(stored, SparseTarget | HiddenTarget)
    return fidelity(live, stored, store.codec.vocabulary, temperature)


def inspection_lines(found: dict[str, Any]) -> str:
    """The findings of `inspect`, one per line."""
    lines = {name: value for name, value in found.items() if name != "fidelity"}
    lines["bytes_on_disk"] = size(found["bytes_on_disk"])
    lines["bytes_per_token"] = f"{found['bytes_per_token']:.1f}"
    for name, value in found.get("fidelity", {}).items():
        lines[f"fidelity.{name}"] = f"{value:,}" if isinstance(value, int) else f"{value:.5f}"
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())
