"""Disk: the bytes that a step leaves in the run folder, and those that it needs while it is at work."""

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.data.text_runs import RUN
from potstill.planning.captured_spans import bytes_of_spans
from potstill.planning.jobs import Situation, TrainingJob, bytes_per_weight, checkpoint_bytes
from potstill.planning.models import PlannedModel
from potstill.planning.ranges import ZERO, Range
from potstill.planning.stage_jobs import TRAINED_STAGES
from potstill.recipe.across_tokenizers import keeps_documents
from potstill.recipe.distil import KeptSnapshots
from potstill.recipe.step import Step
from potstill.targets.codecs.registry import Codec, estimate, make_codec

ID_BYTES, OFFSET_BYTES, TEXT_BYTES = 4, 4, 4.5
"""Of a token's id, of a sample, and of a token as text."""
SMALL = Range(2e3, 3e5, 2e7)
"""Logs, manifests and figures of a step."""
TOKENIZER = Range(1e5, 2e6, 4e7)
"""The files of a tokenizer beside a model."""
EXPORTED = {
    "gguf-F16": Range(2.0, 2.02, 2.1),
    "gguf-BF16": Range(2.0, 2.02, 2.1),
    "gguf-Q8_0": Range(1.06, 1.08, 1.2),
    "gguf-Q6_K": Range(0.8, 0.85, 1.1),
    "gguf-Q5_K_M": Range(0.7, 0.8, 1.1),
    "gguf-Q4_K_M": Range(0.6, 0.75, 1.1),
    "merged": Range(2.0, 4.0, 4.1),
    "int8": Range(1.0, 1.6, 4.1),
}
"""Of a weight, by the folder of the format. Files of few bits keep some tensors in more, the more so the smaller the
model is."""
CHECKPOINTS_KEPT = 2
"""`save_total_limit` of `training/arguments.py`."""


@dataclass(frozen=True)
class Disk:
    """Bytes."""

    kept: Range
    meanwhile: Range = ZERO
    """Beside them, until the step is done."""


def disk_of(step: Step, at: Situation, jobs: Sequence[object]) -> Disk | None:
    """The disk of a step; None where that is not known yet."""
    if step.stage in TRAINED_STAGES:
        return _of_training(step, at, jobs)
    kept = _kept(step, at)
    return None if kept is None else Disk(kept + SMALL)


def _kept(step: Step, at: Situation) -> Range | None:
    models, amounts = at.models, at.amounts
    if step.stage == "teachers":
        here = [one for one in models.teachers.values() if one.name not in at.recipe.pretrain]
        return sum((TOKENIZER + one.parameters.total * 4.0 for one in here if one.converts), ZERO)
    if step.stage == "student":
        if models.student is None:
            return None
        return TOKENIZER + models.student.parameters.total * (2.0 if at.recipe.start_in_bfloat16 else 4.0)
    if step.stage == "corpus":
        return _corpus(at)
    if step.stage == "strategies":
        if amounts.samples is None:
            return None
        return amounts.samples * (amounts.length * 2.0 + amounts.teacher_length) * float(ID_BYTES)
    if step.stage == "capture":
        return _capture(step, at)
    if step.stage in ("answers", "generate"):
        count = amounts.held_out_samples if step.stage == "answers" else amounts.samples
        return None if count is None else count * Range(300, 1500, 6000)
    if step.stage == "export" and step.name is not None:
        sizes = EXPORTED[step.name.rpartition("/")[2]]
        return None if models.student is None else TOKENIZER + sizes * float(models.student.parameters.total)
    return ZERO


def _corpus(at: Situation) -> Range | None:
    amounts = at.amounts
    if amounts.tokens is None or amounts.samples is None:
        return None
    if at.recipe.asks:
        return amounts.samples * Range(300, 1200, 4000)
    # The texts lie in a file of their own while they are split.
    held_out = (amounts.held_out_tokens or amounts.tokens * Range(0.0, 0.05, 0.2)) * (ID_BYTES + TEXT_BYTES)
    of_token, of_sample = float(ID_BYTES), float(OFFSET_BYTES)
    if keeps_documents(at.recipe):
        of_token, of_sample = of_token + TEXT_BYTES, of_sample + RUN.itemsize
    return amounts.tokens * of_token + amounts.samples * of_sample + held_out


def _capture(step: Step, at: Situation) -> Range | None:
    if keeps_documents(at.recipe):
        stores = [bytes_of_spans(at, model) for model in at.models.teachers.values()]
        return None if None in stores else sum((one for one in stores if one is not None), ZERO)
    samples, learned = at.amounts.samples, at.amounts.supervised
    if samples is None or learned is None:
        return None
    whole = ZERO
    for model in at.models.teachers.values():
        codec = codec_of(step, at, model)
        share = at.amounts.taught_by(model.name)
        own = ((learned * share * at.amounts.tokens_of(model.name)).to_list(), (samples * share).to_list())
        sizes = [
            estimate(codec, tokens=round(tokens), samples=round(count)).total_bytes
            for tokens, count in zip(*own, strict=True)
        ]
        whole += Range(*map(float, sizes))
        if codec.mode == "hidden":
            text = model.config.get_text_config()
            whole += float(text.vocab_size * text.hidden_size * bytes_per_weight(at.precision))
    return whole


def codec_of(step: Step, at: Situation, model: PlannedModel) -> Codec:
    """The codec of a capture, over all logits of the teacher."""
    capture, text = at.recipe.capture, model.config.get_text_config()
    assert capture is not None
    vocabulary = int(text.vocab_size)
    if capture.keep == "spans":
        # Of turns and answers. Documents have blocks (`bytes_of_spans`).
        return make_codec("turns")
    if capture.keep == "hidden":
        bits = 8 * bytes_per_weight(at.precision)
        return make_codec("hidden", vocabulary=vocabulary, hidden_size=text.hidden_size, bits=bits)
    temperatures = at.recipe.temperatures_of(step.name)
    exact = {"k": min(capture.k, vocabulary), "bits": capture.bits}
    if capture.keep == "top_k":
        return make_codec("top_k", vocabulary=vocabulary, temperatures=temperatures, **exact)
    drawn = {"draws": capture.samples, "temperature": temperatures[0]}
    return make_codec(capture.keep, vocabulary=vocabulary, **(drawn | exact if capture.keep == "hybrid" else drawn))


def _of_training(step: Step, at: Situation, jobs: Sequence[object]) -> Disk | None:
    found = [job for job in jobs if isinstance(job, TrainingJob)]
    if not found:
        return None
    job, recipe = found[0], at.recipe
    sizes = job.student.parameters
    model, checkpoint = checkpoint_bytes(job)
    kept = 4.0 * sizes.total if job.how.adapter is not None and recipe.student.merge else model
    snapshots = recipe.distil.snapshots if step.stage in ("distil", "control") else None
    count = ZERO if snapshots is None else _snapshots(snapshots, job.steps)
    if count is None:
        return None
    fields = recipe.pretrain[str(step.name)].training if step.stage == "pretrain" else recipe.distil.training
    limit = fields.get("save_total_limit", CHECKPOINTS_KEPT) or CHECKPOINTS_KEPT
    saves = 0 if fields.get("save_strategy") == "no" else limit
    # The oldest checkpoint goes when the newest is whole. A short training never comes to its limit.
    meanwhile = Range(0.0, saves * checkpoint, (saves + 1 if saves else 0) * checkpoint)
    if step.stage == "search":
        kept, count = 0.0, ZERO
    return Disk(TOKENIZER + kept + count * model + SMALL, meanwhile + TOKENIZER)


def _snapshots(kept: KeptSnapshots, steps: Range | None) -> Range | None:
    if steps is None:
        return None if kept.count is None else Range.exactly(kept.count)
    return Range(*(float(len(kept.steps(max(1, round(one))))) for one in steps.to_list()))
