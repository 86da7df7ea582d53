"""A script for TRL's trainers is told what to pass here."""

from dataclasses import dataclass

import pytest
from transformers import TrainingArguments

from potstill import DistilTrainer
from potstill.errors import UserError
from potstill.training.trl_arguments import check_arguments, trainer_arguments
from tiny import llama, tokenizer
from toy_training import arguments


@dataclass
class SFTConfig(TrainingArguments):
    """The fields of TRL's class of this name that are read or refused, with its defaults."""

    max_length: int | None = 1024
    dataset_text_field: str = "text"
    packing: bool = False
    eval_packing: bool | None = None
    padding_free: bool = False
    truncation_mode: str = "keep_start"
    completion_only_loss: bool | None = None
    assistant_only_loss: bool = False
    loss_type: str = "nll"
    eos_token: str | None = None
    model_init_kwargs: dict | None = None


@dataclass
class GKDConfig(SFTConfig):
    """The same of TRL's class of this name."""

    lmbda: float = 0.5
    beta: float = 0.5
    temperature: float = 0.9


def config(kind, folder, **fields):
    return kind(output_dir=str(folder), use_cpu=True, report_to="none", save_strategy="no", **fields)


def test_arguments_are_trainer_s_own_by_place_or_by_name(tmp_path):
    args = arguments(tmp_path)
    assert trainer_arguments(["model", args], {"callbacks": []}) == {"model": "model", "args": args, "callbacks": []}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("teacher_model", "give `teacher`"),
        ("tokenizer", "give `processing_class`"),
        ("formatting_func", "give `train_dataset=dataset.map"),
        ("max_seq_length", "give `max_length`"),
        ("beta", r"give `losses=\[Loss\('jsd'"),
        ("teachers", "give `teacher`"),
        ("traindataset", "give `train_dataset`"),
        ("lmbda", r"give `on_policy=OnPolicy\(share=…\)`"),
        ("max_new_tokens", r"give `on_policy=OnPolicy\(max_new_tokens=…\)`"),
        ("max_completion_length", r"give `on_policy=OnPolicy\(max_new_tokens=…\)`"),
        ("num_generations", r"docs/from-trl\.md"),
    ],
)
def test_an_argument_that_is_not_taken_is_named_with_what_takes_its_place(name, told):
    with pytest.raises(UserError, match=f"no argument `{name}`; .*{told}|no argument `{name}`; {told}"):
        DistilTrainer(llama(), **{name: 1})


def test_a_trainer_needs_a_student():
    with pytest.raises(UserError, match="there is no student"):
        DistilTrainer(teacher=llama())


@pytest.mark.parametrize(
    "field",
    [
        {"packing": True},
        {"eval_packing": True},
        {"padding_free": True},
        {"truncation_mode": "keep_end"},
        {"completion_only_loss": False},
        {"assistant_only_loss": True},
        {"loss_type": "dft"},
        {"eos_token": "<end>"},
        {"model_init_kwargs": {"dtype": "bfloat16"}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_a_field_that_would_be_ignored_is_refused(tmp_path, field):
    with pytest.raises(UserError, match=f"`args.{next(iter(field))}` is .* in your SFTConfig"):
        check_arguments(config(SFTConfig, tmp_path, **field))


def test_the_fields_of_a_distillation_are_refused(tmp_path):
    with pytest.raises(UserError, match="`args` is a GKDConfig, whose `beta`, `temperature`"):
        check_arguments(config(GKDConfig, tmp_path))


def test_length_and_column_of_texts_are_read(tmp_path):
    args = config(SFTConfig, tmp_path, max_length=4, dataset_text_field="content")
    rows = [{"content": "the old river bank crosses the old town"}] * 2
    given = {"teacher": llama(), "train_dataset": rows, "processing_class": tokenizer()}
    assert DistilTrainer(llama(seed=1), args, **given).data_collator(rows)["input_ids"].shape == (2, 4)
    given["max_length"] = 6
    assert DistilTrainer(llama(seed=1), args, **given).data_collator(rows)["input_ids"].shape == (2, 6)
