"""How often a training step waits for a GPU: at most once more than a step of transformers.Trainer."""

import pytest
import torch
from transformers import Trainer

from device_reads import DeviceReads, on_the_host
from potstill import HiddenLoss, Loss
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.losses import chunked
from potstill.targets.codecs import bits
from tiny import VOCABULARY, llama, mixture
from toy_training import KL_AND_CE, arguments, captured, packed_rows, prompted, samples, trainer

STEPS, LOGS = 2, 1
"""A log reads the terms of the loss once, as it reads Trainer's own loss."""
JSD = [Loss("jsd", weight=0.5), Loss("cross_entropy", weight=0.5)]
FULL = [{"input_ids": [2 + (row * 7 + place) % (VOCABULARY - 2) for place in range(12)]} for row in range(32)]
PADDED = samples(32)
DOCUMENTS = (packed_rows([row["input_ids"] for row in samples(90)])[0])[:32]
BY_ROW = [{**row, "teachers": (["maths"], [], ["chat"], ["maths", "chat"])[n % 4]} for n, row in enumerate(PADDED)]
STEPS_OF = {
    "accumulated": {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2, "logging_steps": STEPS},
    "one batch": {"per_device_train_batch_size": 8, "logging_steps": STEPS},
}
TRAININGS = {
    "full rows": (FULL, {}),
    "padded rows": (PADDED, {}),
    "documents": (DOCUMENTS, {}),
    "jsd": (PADDED, {"losses": JSD}),
    "cross-entropy": (PADDED, {"losses": [Loss("cross_entropy")], "teacher": None}),
    "layers": (PADDED, {"losses": [*KL_AND_CE, HiddenLoss(weight=0.1)]}),
    "layers of an ensemble": (PADDED, {"losses": [HiddenLoss()], "teacher": [llama(), llama(2)]}),
    "teachers by row": (BY_ROW, {"teacher": {"maths": llama(), "chat": llama(2)}}),
    "layers by row": (BY_ROW, {"teacher": {"maths": llama(), "chat": llama(2)}, "losses": [*KL_AND_CE, HiddenLoss()]}),
    "mixture of experts": (PADDED, {"student": mixture}),
    "tokens counted": (PADDED, {"include_num_input_tokens_seen": "non_padding"}),
    "an infinite loss filtered": (PADDED, {"logging_nan_inf_filter": True}),
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """The checks and the decoding that only a CPU does are left out."""
    monkeypatch.setattr(chunked, "check_labels", lambda *_: None)
    monkeypatch.setattr(bits, "_set_bits", bits._set_bits_by_torch)


def reads(one: Trainer) -> list[str]:
    """The lines of code that wait for the device during a training, without what loaders do on the host."""
    loader = one.get_train_dataloader()
    loader.base_dataloader.collate_fn = on_the_host(loader.base_dataloader.collate_fn)
    one.get_train_dataloader = lambda: loader
    with DeviceReads() as counted:
        one.train()
    # Such a line reads on a CPU only.
    return [line for line in counted.lines if 'device.type != "cpu" or' not in line]


def of_trainer(folder, rows, student=None, **given) -> list[str]:
    """The reads of transformers.Trainer with cross-entropy."""
    model = student or llama(seed=1, layers=2)
    fields = arguments(folder, max_steps=STEPS, logging_nan_inf_filter=False, **given)
    plain = [{name: value for name, value in row.items() if name in ("input_ids", "labels")} for row in rows]
    return reads(Trainer(model=model, args=fields, train_dataset=plain, data_collator=Collator(0)))


@pytest.mark.parametrize(
    ("kind", "batches"), [*((kind, "accumulated") for kind in TRAININGS), ("padded rows", "one batch")]
)
def test_a_step_waits_for_the_device_once_more_than_trainers(tmp_path, kind, batches):
    rows, given = TRAININGS[kind]
    given = {"teacher": llama(), **given}
    make = given.pop("student", lambda: llama(seed=1, layers=2))
    found = reads(trainer(tmp_path, make(), train_dataset=rows, max_steps=STEPS, **STEPS_OF[batches], **given))
    own = of_trainer(tmp_path, rows, make(), **STEPS_OF[batches])
    assert len([line for line in found if "whole.item()" in line]) == STEPS
    assert len(found) <= len(own) + STEPS + LOGS, "\n".join(sorted(set(found) - set(own)))


@pytest.mark.parametrize("rows", [PADDED, DOCUMENTS], ids=["padded", "documents"])
def test_captured_targets_add_no_wait(tmp_path, rows):
    store = captured(tmp_path / "store", llama(), rows)
    batches = STEPS_OF["accumulated"]
    found = reads(trainer(tmp_path, teacher=store, train_dataset=rows, max_steps=STEPS, **batches))
    own = of_trainer(tmp_path, rows, **batches)
    assert len(found) <= len(own) + STEPS + LOGS, "\n".join(sorted(set(found) - set(own)))


def test_a_teacher_with_its_own_prompts_adds_no_wait(tmp_path):
    rows = prompted()
    teacher, student = llama(max_position_embeddings=640), llama(seed=1, layers=2, max_position_embeddings=640)
    given = {"max_steps": STEPS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    found = reads(trainer(tmp_path, student, teacher=teacher, train_dataset=rows, **given))
    # Trainer alone reads its loss and the norm of the gradient at each log, and three numbers of a whole training.
    assert len(found) <= STEPS + STEPS * 3 + 3, "\n".join(found)


def test_an_evaluation_reads_its_loss_once(tmp_path):
    one = trainer(tmp_path, teacher=llama(), eval_dataset=PADDED, per_device_eval_batch_size=2)
    with DeviceReads() as counted:
        one.evaluate()
    assert not [line for line in counted.lines if "evaluation_loss" in line and "tolist" not in line]
    assert len([line for line in counted.lines if "evaluation_loss" in line]) == 2


def test_the_count_sees_every_way_to_wait():
    mask, numbers = torch.tensor([True, False]), torch.tensor([1.0, 2.0])
    waits = [
        lambda: bool(numbers.sum() > 0),
        lambda: float(numbers[0]),
        lambda: numbers.sum().item(),
        numbers.tolist,
        numbers.cpu,
        numbers.numpy,
        mask.nonzero,
        lambda: numbers[mask],
        lambda: numbers.masked_select(mask),
        lambda: numbers.__setitem__(mask, torch.ones(1)),
        lambda: torch.tensor(1.0),
        lambda: torch.as_tensor(1.0),
        lambda: numbers.new_tensor([1.0]),
        lambda: numbers.unique(),
        lambda: torch.equal(numbers, numbers),
        lambda: numbers.repeat_interleave(torch.tensor([1, 2])),
    ]
    for wait in waits:
        with DeviceReads() as counted:
            wait()
        assert counted.lines
    with DeviceReads() as counted:
        numbers[torch.arange(2)] = numbers.masked_fill(mask, IGNORE_INDEX).index_select(0, torch.arange(2))
        torch.where(mask, numbers, 0.0).sum().add_(1.0)
    assert not counted.lines
