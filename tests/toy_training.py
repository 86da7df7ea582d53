"""Toy trainings whose every gradient can be done by hand: plain SGD, no clipping, samples in a known order."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from potstill import DistilTrainer, Loss, TargetStore
from potstill.data.collators import Collate, Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.packing import TokenizedDocument, packed
from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.data.text_runs import TEXT_RUNS, DocumentTokens, column_of
from potstill.data.token_bytes import TokenBytes
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.data.turns_of_batch import TeacherSide
from potstill.recipe.strategies import SHIPPED, Strategy
from potstill.targets import Codec, Provenance, StoreSpec, make_codec
from potstill.targets.codecs.turns import TurnCodec
from potstill.teachers.capture import SampleBatches, capture
from potstill.teachers.capture_spans import DocumentBlocks, capture_spans, span_codec
from potstill.teachers.capture_turns import ReadTurns, capture_turns
from potstill.teachers.live import LiveTeacher
from tiny import VOCABULARY, documents, llama, tokenizer
from tokenizer_zoo import trained as tokenizer_of_others

Sample = dict[str, list[int]]


class Killed(TrainerCallback):
    """Ends a training in the middle of its fifth step, as a power failure does."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After four steps it raises an error."""
        if state.global_step == 4:
            raise RuntimeError("killed")


KL_AND_CE = (Loss("forward_kl", weight=0.7, temperature=2.0), Loss("cross_entropy", weight=0.3))


def samples(count: int = 8, seed: int = 0, longest: int = 24) -> list[Sample]:
    """Samples of very different lengths, whose prompts (up to all but two tokens) must not be learned."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        ids = [draw.randrange(2, VOCABULARY) for _ in range(draw.randint(4, longest))]
        prompt = draw.randint(0, len(ids) - 2)
        made.append({"input_ids": ids, "labels": [IGNORE_INDEX] * prompt + ids[prompt:]})
    return made


def packed_rows(documents: Sequence[list[int]], length: int = 20) -> tuple[list[dict[str, Any]], list[Sample]]:
    """Packed samples, and a sample for each piece of a document in them."""
    made = packed(map(TokenizedDocument, documents), length)
    whole = [{"input_ids": each.input_ids, "documents": each.documents} for each in made]
    alone = []
    for row in whole:
        ids = iter(row["input_ids"])
        alone += [{"input_ids": [next(ids) for _ in range(size)]} for size in row["documents"]]
    return whole, alone


def prompted(strategy: Strategy = SHIPPED["ground-truth"], count: int = 12, longest: int = 90) -> list[Any]:
    """Samples whose prompts and answers are of very different lengths, some of them cut."""
    rows = [text.split() for text in documents(count, seed=4)]
    asked = [
        {"question": " ".join(row[: 2 + n % 5]), "reference": " ".join(row[:9]), "answer": " ".join(row[5 : 9 + n])}
        for n, row in enumerate(rows)
    ]
    prompter = AlignedSampleBuilder({"s": strategy}, tokenizer(), longest, 128 + 200)
    return [prompter(row, f"row {n}")["s"] for n, row in enumerate(asked)]


def arguments(folder: Path, **fields: Any) -> TrainingArguments:
    """SGD takes each gradient as it is: Adam and clipping would hide one that is four times too large."""
    given = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=str(folder), **{**given, **fields})


def trainer(folder: Path, student: PreTrainedModel | None = None, **given: Any) -> DistilTrainer:
    """A trainer of toy samples; arguments of `TrainingArguments` and of `DistilTrainer` alike."""
    own = ("teacher", "losses", "temperature", "teacher_weights", "mix", "train_dataset", "eval_dataset")
    extra = (
        "teacher_tokenizer",
        "data_collator",
        "processing_class",
        "callbacks",
        "compute_metrics",
        "compute_loss_func",
        "max_length",
        "peft_config",
        "memory_budget",
        "on_policy",
        "rollout_teacher",
        "conversations",
        "compile",
    )
    distilling = {name: given.pop(name) for name in (*own, *extra) if name in given}
    distilling = {"losses": KL_AND_CE, "train_dataset": samples(), **distilling}
    return DistilTrainer(model=student or llama(seed=1, layers=2), args=arguments(folder, **given), **distilling)


def trained(folder: Path, student: PreTrainedModel | None = None, **given: Any) -> dict[str, Tensor]:
    """The weights after training."""
    one = trainer(folder, student, **given)
    one.train()
    return weights(one.model)


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of every weight."""
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> None:
    """Weights that are the same: bit for bit unless a tolerance is given."""
    assert one.keys() == other.keys()
    for name in one:
        if tolerance == 0:
            assert torch.equal(one[name], other[name]), name
        else:
            torch.testing.assert_close(
                one[name], other[name], rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
            )


def sums_by_hand(
    student: PreTrainedModel, teacher: PreTrainedModel | None, rows: Sequence[Sample], temperature: float = 1.0
) -> tuple[dict[str, Tensor], int]:
    """Sums of cross-entropy and T² · KL, each sample read alone, and the number of supervised tokens."""
    sums, tokens = {"cross_entropy": torch.tensor(0.0), "forward_kl": torch.tensor(0.0)}, 0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        taught = labels != IGNORE_INDEX
        logits = student(input_ids=ids).logits[0, :-1][taught]
        sums["cross_entropy"] = sums["cross_entropy"] + cross_entropy(logits, labels[taught], reduction="sum")
        if teacher is not None:
            with torch.no_grad():
                theirs = log_softmax(teacher(input_ids=ids).logits[0, :-1][taught] / temperature, -1)
            ours = log_softmax(logits / temperature, -1)
            divergence = kl_div(ours, theirs, log_target=True, reduction="sum")
            sums["forward_kl"] = sums["forward_kl"] + temperature**2 * divergence
        tokens += int(taught.sum())
    return sums, tokens


def captured(
    folder: Path,
    teacher: PreTrainedModel,
    rows: Sequence[Any],
    revision: str = "one",
    codec: Codec | None = None,
    collate: Collate | None = None,
) -> TargetStore:
    """A store of a teacher's targets; everything that the teacher says unless a codec is given."""
    exact = make_codec("top_k", vocabulary=VOCABULARY, k=VOCABULARY, bits=32, temperatures=(2.0,))
    origin = Provenance("toy", revision, tokenizer_fingerprint(tokenizer()), "none")
    codec, live = codec or exact, LiveTeacher(teacher, (codec or exact).vocabulary)
    capture(StoreSpec(folder, codec, origin), live, SampleBatches(list(rows), collate or Collator(0), batch_size=4))
    return TargetStore(folder, expect=origin)


def teacher_of_other_tokens() -> PreTrainedModel:
    """A teacher of another tokenizer (``tokenizer_zoo.trained``)."""
    return llama(seed=3, vocab_size=400, max_position_embeddings=512)


def captured_spans(folder: Path, texts: Sequence[str]) -> TargetStore:
    """A store of that teacher's spans."""
    teacher, theirs = teacher_of_other_tokens(), tokenizer_of_others()
    origin, codec = Provenance("toy", "one", tokenizer_fingerprint(theirs), "none"), span_codec(teacher.config, theirs)
    documents = DocumentBlocks(texts, TokenBytes(theirs, "the teacher"), codec)
    capture_spans(StoreSpec(folder, codec, origin), LiveTeacher(teacher), documents, batch_size=4)
    return TargetStore(folder, expect=origin)


def captured_turns(
    folder: Path, teacher: PreTrainedModel, theirs: Any, end: int, rows: Any, number: int = 0
) -> TargetStore:
    """A store of what a teacher of another tokenizer says of samples with pieces, of which it teaches some."""
    origin = Provenance("toy", "one", tokenizer_fingerprint(theirs), "none")
    taught = [place for place, row in enumerate(rows) if len(row["other_input_ids"][number])]
    turns = ReadTurns(TeacherSide(rows, number, taught), TokenBytes(theirs, "the teacher"), end)
    capture_turns(StoreSpec(folder, TurnCodec(), origin), LiveTeacher(teacher), turns, batch_size=3)
    return TargetStore(folder, expect=origin)


def rows_of_texts(texts: Sequence[str]) -> list[dict[str, Any]]:
    """A sample of each text, after a separator; each says which text it is of."""
    rows = []
    for text, found in zip(texts, TokenBytes(tokenizer(), "tiny").read(texts), strict=True):
        runs = DocumentTokens.of(text, found, 1).runs(0, len(found.ids) + 1, 0)
        rows.append({"input_ids": [0, *found.ids.tolist()], TEXT_RUNS: column_of([runs])})
    return rows


def naive_step(
    student: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[Sample], learning_rate: float = 0.5
) -> dict[str, Tensor]:
    """The weights after one step of SGD on `KL_AND_CE`, by autograd of the formula."""
    sums, tokens = sums_by_hand(student, teacher, rows, temperature=2.0)
    ((0.7 * sums["forward_kl"] + 0.3 * sums["cross_entropy"]) / tokens).backward()
    with torch.no_grad():
        for weight in student.parameters():
            weight -= learning_rate * weight.grad
    return weights(student)


def shuffled(rows: Sequence[Sample], seed: int) -> list[Sample]:
    """The same samples in another order."""
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def left_padded(rows: Sequence[Sample]) -> dict[str, Tensor]:
    """A batch as generation wants it: pads first."""
    batch = Collator(0)(rows)
    lengths = batch["attention_mask"].sum(1).tolist()
    return {
        name: torch.stack([row.roll(len(row) - n) for row, n in zip(value, lengths, strict=True)])
        for name, value in batch.items()
    }
