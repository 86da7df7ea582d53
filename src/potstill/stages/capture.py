"""capture: run each teacher once over the training samples and keep what it says.

Makes one store a teacher, `capture/<teacher>/`. A capture that was stopped goes on with what is missing.
"""

import time

import torch
from datasets import load_from_disk

from potstill import ranks, ready
from potstill.console import duration, say, size
from potstill.hardware import device
from potstill.pipeline import Made, Work
from potstill.targets import Codec, Estimate, Provenance, estimate, make_codec
from potstill.teachers.captured import capture, contents
from potstill.teachers.huggingface import Prepared, run_dtype
from potstill.teachers.live import LiveTeacher
from potstill.text.batching import Collator, pad_token_id
from potstill.text.tokenizers import tokenizer_fingerprint
from potstill.words import UserError


def run(work: Work) -> Made:
    """Capture every teacher."""
    settings = work.recipe.capture
    assert settings is not None
    samples = load_from_disk(work.run.path("corpus") / "train")
    folders, summary = [], {}
    for teacher in ready.teachers(work):
        name, expected = teacher.name, estimated(work, teacher)
        say(f"  {name}: {expected.bytes_per_token:.0f} bytes a token, {size(expected.total_bytes)} in all")
        folder, collator = work.folder / name, Collator(pad_token_id(teacher.tokenizer()))
        codec = codec_of(work, teacher)
        live = LiveTeacher(teacher.model(), codec.vocabulary)
        batches = (samples, collator, settings.batch_size)
        tokens = capture(folder, live, codec, provenance(teacher), *batches, ranks.own(), ranks.count())
        folders.append(folder)
        summary[name] = {"tokens": tokens, "bytes_per_token": expected.bytes_per_token}
    return Made(folders, summary | {"made": f"{settings.keep} targets of {', '.join(summary)}"})


def estimated(work: Work, teacher: Prepared) -> Estimate:
    """What a capture of this teacher will weigh."""
    samples = load_from_disk(work.run.path("corpus") / "train")
    _, counts = contents(samples, Collator(pad_token_id(teacher.tokenizer())))
    return estimate(codec_of(work, teacher), tokens=sum(counts), samples=len(counts))


def forecast(work: Work) -> str:
    """What the capture will take: bytes, and hours by the pace of one batch; a line a teacher."""
    settings, lines = work.recipe.capture, []
    assert settings is not None
    samples = load_from_disk(work.run.path("corpus") / "train")
    for teacher in ready.teachers(work):
        name = teacher.name
        expected, live = estimated(work, teacher), LiveTeacher(teacher.model())
        rows = [samples[at] for at in range(min(settings.batch_size, len(samples)))]
        batch = {key: value.to(device()) for key, value in Collator(pad_token_id(teacher.tokenizer()))(rows).items()}
        live.target(batch)
        began = time.perf_counter()
        live.target(batch)
        seconds = (time.perf_counter() - began) / len(rows) * len(samples)
        what = f"{expected.bytes_per_token:.0f} bytes a token, {size(expected.total_bytes)} in all"
        lines.append(f"{name}: {what}, about {duration(seconds)}")
    return "\n".join(lines)


def codec_of(work: Work, teacher: Prepared) -> Codec:
    """The codec that the recipe's `capture:` asks for, at the temperatures that its losses use.

    It is over the ids that student and teachers are compared on: what a tail says of others could not be told apart.

    Raises:
        UserError: the losses have several temperatures, and what is to be kept has one.
    """
    recipe, config = work.recipe, teacher.config()
    capture, vocabulary = recipe.capture, ready.compared_vocabulary(work) or config.vocab_size
    assert capture is not None
    if capture.keep == "hidden":
        bits = 16 if run_dtype(teacher.dtype) == torch.bfloat16 else 32
        return make_codec("hidden", vocabulary=vocabulary, hidden_size=config.hidden_size, bits=bits)
    temperatures = recipe.distil.temperatures
    if len(temperatures) > 1:
        raise UserError(
            f"`capture.keep: {capture.keep}` is read at one temperature, but `distil.losses` have {temperatures}; give "
            "them one, use `capture.keep: hidden`, or leave `capture` out"
        )
    exact = {"k": capture.k, "bits": capture.bits}
    if capture.keep == "top_k":
        return make_codec("top_k", vocabulary=vocabulary, temperatures=temperatures, **exact)
    drawn = {"draws": capture.samples, "temperature": temperatures[0]}
    settings = drawn | exact if capture.keep == "hybrid" else drawn
    return make_codec(capture.keep, vocabulary=vocabulary, **settings)


def provenance(teacher: Prepared) -> Provenance:
    """What a store of this teacher's targets must have come from."""
    return Provenance(
        teacher=teacher.name,
        revision=teacher.fingerprint,
        tokenizer=tokenizer_fingerprint(teacher.tokenizer()),
        template="none",
    )
