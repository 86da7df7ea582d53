"""capture: run each teacher once over the training samples and keep its targets.

Makes one store for each teacher, `capture/TEACHER/`; for questions, one for each sample set and teacher,
`capture/STRATEGY/own/TEACHER/`. With `keep: spans`, teachers read the training documents instead, or conversations and
questions in tokens of their own (``pipeline/span_captures.py``). A stopped capture
continues with the missing samples.
"""

import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from potstill import distributed
from potstill.console import duration, say, size
from potstill.data.prompts.collator import teacher_batch
from potstill.data.prompts.render import ends_of, template_fingerprint
from potstill.data.row_teachers import TEACHERS
from potstill.data.sample_rows import rows_at
from potstill.device import device
from potstill.errors import UserError
from potstill.files.atomic import atomic_folder
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.span_captures import SpanCapture, span_captures
from potstill.pipeline.work import Made, Work
from potstill.recipe.across_tokenizers import keeps_spans
from potstill.recipe.row_rules import teaches_by_row
from potstill.recipe.served import only_writes
from potstill.targets import Codec, SizeEstimate, StoreSpec, TargetStore, estimate, make_codec
from potstill.targets.codecs.registry import CrossingCodec
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.capture_spans import UntoldMass
from potstill.teachers.hosted import HostedTeacher
from potstill.teachers.prepared import PreparedTeacher
from potstill.teachers.served import ServedTeacher
from potstill.teachers.written import WRITTEN, WrittenTeacher


def run(work: Work) -> Made:
    """Capture every teacher."""
    settings = work.recipe.capture
    assert settings is not None
    if keeps_spans(work.recipe):
        return _of_spans(work)
    learned = _learned(work)
    folders, summary = [], dict[str, Any]()
    for teacher in artifacts.teachers(work):
        batches = _taught_by(work, teacher, learned)
        name, expected = teacher.name, size_estimate(work, teacher, batches)
        say(f"  {name}: {expected.bytes_per_token:.0f} bytes a token, {size(expected.total_bytes)} in all")
        folder, codec = work.folder / name, make_capture_codec(work, teacher)
        assert not isinstance(codec, CrossingCodec)
        beside = _beside(work, teacher, codec.vocabulary)
        if isinstance(beside, ServedTeacher | HostedTeacher):
            beside.client.keep_traffic(work.folder / f"{name}.traffic.json")
        origin = teacher.provenance(teacher_template(work, work.step.name), artifacts.tokenizer(work))
        store = StoreSpec(folder, codec, origin)
        told = _told(beside, batches, name) if isinstance(beside, WrittenTeacher) else {}
        tokens = capture(store, beside, batches, distributed.rank(), distributed.world_size())
        folders.append(folder)
        summary[name] = {"tokens": tokens, "bytes_per_token": expected.bytes_per_token, **told, **traffic_of(beside)}
        if teaches_by_row(work.recipe):
            summary[name] |= {"samples": len(batches.samples), "samples_in_all": len(learned.samples)}
    return Made(folders, summary | {"made": f"{settings.keep} targets of {', '.join(summary)}"})


def _of_spans(work: Work) -> Made:
    """Capture the spans of teachers of other tokenizers."""
    assert work.recipe.capture is not None
    folders, summary = [], dict[str, Any]()
    for teacher, wanted in span_captures(work):
        name = teacher.name
        if work.recipe.capture.store is not None:
            folders.append(_taken(work, name, wanted, Path(work.recipe.capture.store)))
            summary[name] = {"tokens": wanted.tokens, "taken_from": work.recipe.capture.store}
            continue
        expected = wanted.size
        say(f"  {name}: {expected.bytes_per_token:.1f} bytes a token, {size(expected.total_bytes)} in all")
        beside = teacher.beside()
        if isinstance(beside, ServedTeacher | HostedTeacher):
            beside.client.keep_traffic(work.folder / f"{name}.traffic.json")
        store = StoreSpec(work.folder / name, wanted.codec, wanted.origin)
        ranks = distributed.rank(), distributed.world_size()
        untold = wanted.write(store, beside, work.recipe.capture.batch_size, ranks)
        folders.append(store.folder)
        summary[name] = {
            "tokens": wanted.tokens,
            "bytes_per_token": expected.bytes_per_token,
            **traffic_of(beside),
        }
        if not beside.gives_whole_distributions:
            summary[name] |= {"untold": asdict(_of_all_ranks(untold))}
    return Made(folders, summary | {"made": f"spans of {', '.join(summary)}"})


def _of_all_ranks(untold: UntoldMass) -> UntoldMass:
    whole = UntoldMass()
    for one in distributed.gathered(untold):
        whole.merge(one)
    return whole


def _taken(work: Work, teacher: str, wanted: SpanCapture, capture: Path) -> Path:
    """Copy the store of another run, which has all that this one reads.

    Raises:
        UserError: it has not, or it is of another teacher or read otherwise.
    """
    folder, store = work.folder / teacher, capture / (work.step.name or "") / teacher
    found = TargetStore(store, expect=wanted.origin)
    if type(found.codec) is not type(wanted.codec):
        raise UserError(
            f"`capture.store`: {store} keeps {found.codec.mode}, and not {wanted.codec.mode}; name a store of the same "
            "kind of data, captured with `keep: spans`"
        )
    wanted.check(found)
    say(f"  {teacher}: {wanted.told(found)}, taken from {store}")
    if distributed.is_first():
        with atomic_folder(folder) as partial:
            shutil.copytree(store, partial)
    distributed.barrier()
    return folder


def _beside(work: Work, teacher: PreparedTeacher, vocabulary: int | None = None) -> TeacherBeside:
    """The teacher; one that only writes has told its distributions while it wrote."""
    if not only_writes(work.recipe, teacher.name):
        return teacher.beside(vocabulary)
    assert teacher.served is not None
    log, ends = work.run.path("generate") / WRITTEN, ends_of(artifacts.tokenizer(work))
    return WrittenTeacher(log, teacher.served, ends, vocabulary)


def _told(teacher: WrittenTeacher, batches: SampleBatches, name: str) -> dict[str, int]:
    """How many supervised tokens have a distribution, for the manifest; it is also printed.

    Raises:
        UserError: none has one.
    """
    told, every_time = 0, batches.batch_size
    for at in range(0, len(batches.samples), every_time):
        rows = rows_at(batches.samples, range(at, min(at + every_time, len(batches.samples))))
        told += teacher.told(teacher_batch(batches.collate(rows)))
    every = int(batches.contents.counts.sum())
    if not told:
        raise UserError(
            f"`generate.by: {name}`: none of the {every:,} tokens to learn is one that the server wrote after the same "
            "tokens; run `generate` again, with a chat template that repeats a conversation as it is"
        )
    say(f"  {name}: {told:,} of {every:,} tokens to learn have the server's distribution")
    return {"told": told}


def traffic_of(teacher: TeacherBeside) -> dict[str, Any]:
    """What a teacher behind a server was asked in all attempts, for the manifest; nothing of other teachers."""
    if not isinstance(teacher, ServedTeacher | HostedTeacher):
        return {}
    return {"traffic": asdict(teacher.client.traffic)}


def _learned(work: Work) -> SampleBatches:
    """All samples that are learned."""
    assert work.recipe.capture is not None
    learned = training_data.for_sample_set(work, work.step.name)
    return SampleBatches(learned.train, learned.collate, work.recipe.capture.batch_size)


def _taught_by(work: Work, teacher: PreparedTeacher, learned: SampleBatches) -> SampleBatches:
    """The samples that a teacher teaches. A store has the targets of these alone."""
    if not teaches_by_row(work.recipe):
        return learned
    places = [place for place, names in enumerate(learned.samples[TEACHERS]) if teacher.name in names]
    return replace(learned, samples=learned.samples.select(places).remove_columns(TEACHERS))


def size_estimate(work: Work, teacher: PreparedTeacher, batches: SampleBatches) -> SizeEstimate:
    """The size of a capture of this teacher."""
    counts = batches.contents.counts
    return estimate(make_capture_codec(work, teacher), tokens=int(counts.sum()), samples=len(counts))


def forecast(work: Work) -> str:
    """The bytes of the capture, and its duration at the speed of one batch, in one line for each teacher."""
    if keeps_spans(work.recipe):
        return _forecast_of_spans(work)
    learned, lines = _learned(work), []
    of = "" if work.step.name is None else f"{work.step.name}, "
    for teacher in artifacts.teachers(work):
        batches = _taught_by(work, teacher, learned)
        expected, live = size_estimate(work, teacher, batches), _beside(work, teacher)
        rows = rows_at(batches.samples, range(min(batches.batch_size, len(batches.samples))))
        batch = {key: value.to(device()) for key, value in teacher_batch(batches.collate(rows)).items()}
        live.target(batch)
        began = time.perf_counter()
        live.target(batch)
        seconds = (time.perf_counter() - began) / len(rows) * len(batches.samples)
        what = f"{expected.bytes_per_token:.0f} bytes a token, {size(expected.total_bytes)} in all"
        lines.append(f"{of}{teacher.name}: {what}, about {duration(seconds)}")
    return "\n".join(lines)


def _forecast_of_spans(work: Work) -> str:
    assert work.recipe.capture is not None
    at_once, lines = work.recipe.capture.batch_size, []
    for teacher, wanted in span_captures(work):
        beside, expected = teacher.beside(), wanted.size
        for _ in range(2):
            began = time.perf_counter()
            read = wanted.tokens_of_a_batch(beside, at_once)
        seconds = (time.perf_counter() - began) / max(read, 1) * wanted.tokens
        what = f"{expected.bytes_per_token:.1f} bytes a token, {size(expected.total_bytes)} in all"
        lines.append(f"{teacher.name}: {what}, about {duration(seconds)}")
    return "\n".join(lines)


def make_capture_codec(work: Work, teacher: PreparedTeacher) -> Codec:
    """The codec that the recipe's `capture:` asks for, at the temperatures that its losses use.

    It covers only the ids on which student and teachers are compared: a tail mass would mix in the others.

    Raises:
        UserError: the losses have several temperatures, but the codec keeps only one.
    """
    recipe, config = work.recipe, teacher.config()
    capture, vocabulary = recipe.capture, artifacts.compared_vocabulary(work) or config.vocab_size
    assert capture is not None
    if capture.keep == "hidden":
        bits = 16 if teacher.dtype == "bfloat16" else 32
        return make_codec("hidden", vocabulary=vocabulary, hidden_size=config.hidden_size, bits=bits)
    temperatures = recipe.temperatures_of(work.step.name)
    # A top-k store keeps a tail for each temperature, but one training reads it at one temperature.
    at_once = recipe.most_temperatures if capture.keep == "top_k" else temperatures
    if len(at_once) > 1:
        raise UserError(
            f"`capture.keep: {capture.keep}` is read at one temperature, but `distil.losses` have {at_once}; give "
            "them one, use `capture.keep: hidden`, or leave `capture` out"
        )
    exact = {"k": capture.k, "bits": capture.bits}
    if capture.keep == "top_k":
        return make_codec("top_k", vocabulary=vocabulary, temperatures=temperatures, **exact)
    drawn = {"draws": capture.samples, "temperature": temperatures[0]}
    settings = drawn | exact if capture.keep == "hybrid" else drawn
    return make_codec(capture.keep, vocabulary=vocabulary, **settings)


def teacher_template(work: Work, sample_set: str | None) -> str:
    """The fingerprint of the teacher's prompt template; "none" for text, which has no prompt."""
    if sample_set is None:
        return "none"
    strategy = work.recipe.all_strategies[work.recipe.sample_sets[sample_set].strategy]
    return template_fingerprint(artifacts.tokenizer(work), strategy.teacher)
