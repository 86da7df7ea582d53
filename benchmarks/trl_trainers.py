"""TRL's trainers, built for the section `trainers`: GKDTrainer, and the newer DistillationTrainer."""

import os
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Trainer

from potstill.data.collators import Collator

BETA = {"forward_kl": 0.0, "jsd": 0.5}
"""TRL's parameter of its generalised JSD, by potstill's name of the divergence."""

# TRL's default computes activations twice.
_ALIKE = {"gradient_checkpointing": False}

Rows = list[dict[str, list[int]]]


def gkd_trainer(student: Any, teacher: Any, rows: Rows, beta: float, fields: dict[str, Any]) -> Trainer:
    """GKDTrainer on the rows themselves: it generates none (``lmbda=0``)."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    config = GKDConfig(lmbda=0.0, beta=beta, temperature=1.0, **_ALIKE, **fields)
    data = {"train_dataset": Dataset.from_list(rows), "data_collator": Collator(0), "processing_class": _tokenizer()}
    return GKDTrainer(model=student, teacher_model=teacher, args=config, **data)


def distillation_trainer(student: Any, teacher: Any, rows: Rows, beta: float, fields: dict[str, Any]) -> Trainer:
    """DistillationTrainer, given the rows in place of the completions that it would generate."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl import DistillationConfig, DistillationTrainer

    class Given(DistillationTrainer):
        """All but the generation, which no other trainer here has to do."""

        def _prepare_inputs(self, generation_batch: Any) -> dict[str, torch.Tensor]:
            ids = torch.tensor([rows[int(one["prompt"])]["input_ids"] for one in generation_batch]).to(self.args.device)
            ones, first = torch.ones_like(ids), slice(None, 1)
            items = torch.tensor(float(ids[:, 1:].numel()), device=ids.device)
            return {
                "prompt_ids": ids[:, first],
                "prompt_mask": ones[:, first],
                "completion_ids": ids[:, 1:],
                "completion_mask": ones[:, 1:],
                "num_items_in_batch": items,
            }

    length = len(rows[0]["input_ids"])
    config = DistillationConfig(beta=beta, temperature=1.0, max_completion_length=length, **_ALIKE, **fields)
    prompts = Dataset.from_list([{"prompt": str(at)} for at in range(len(rows))])
    given = {"args": config, "train_dataset": prompts, "processing_class": _tokenizer()}
    return Given(model=student, teacher_model=teacher, **given)


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that TRL asks for and that reads nothing here."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
