"""Snapshot texts: at each snapshot the model goes on after the beginnings of some samples, for those who watch it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from potstill import distributed
from potstill.data.labels import IGNORE_INDEX
from potstill.files.progress_log import ProgressLog
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, responses
from potstill.recipe.distil import KeptSnapshots
from potstill.training.trainer import DistilTrainer

SAMPLES, BEGINNING, LENGTH = 2, 24, 40
"""Samples whose beginnings are continued; the most tokens of a beginning that is learned too; tokens that are
written."""


class WriteTexts(TrainerCallback):
    """Writes the texts into the progress log. Nothing of the training changes: no weight, and no random state."""

    def __init__(self, trainer: DistilTrainer, file: Path, snapshots: KeptSnapshots, samples: Any) -> None:
        self._trainer, self._log, self._snapshots = trainer, ProgressLog(file), snapshots
        self._samples = samples
        self._steps: set[int] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find out which steps have snapshots."""
        self._steps = set(self._snapshots.steps(state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the texts of a step that has a snapshot. A model that is split among ranks writes none."""
        if state.global_step not in self._steps or not distributed.is_first() or self._trainer.is_fsdp_enabled:
            return
        begun = [beginning_of(self._samples[place]) for place in range(min(SAMPLES, len(self._samples)))]
        texts = continued(self._trainer.model, self._trainer.processing_class, begun)
        self._log.write(state.global_step, int(state.num_input_tokens_seen), {"texts": texts})


def beginning_of(sample: Mapping[str, Any]) -> list[int]:
    """The tokens of a sample before those that are learned; where all are learned, its first tokens."""
    ids, labels = list(sample["input_ids"]), list(sample.get("labels", ()))
    first = next((place for place, label in enumerate(labels) if label != IGNORE_INDEX), 0)
    return ids[: first if first > 1 else min(BEGINNING, max(1, len(ids) // 2))]


def continued(model: Any, tokenizer: Any, begun: Sequence[list[int]]) -> list[dict[str, str]]:
    """How a model in training goes on after some beginnings, greedily."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, begun))
    length = LENGTH if positions is None else min(LENGTH, positions - longest)
    if length < 1:
        return []
    trains = model.training
    model.eval()
    try:
        requests = [Request(str(place), ids) for place, ids in enumerate(begun)]
        asked, decoding = NamedModel(model, tokenizer, "the student"), Decoding(length, len(begun))
        found = {
            each.id: each.response for some in responses(asked, requests, decoding, key="snapshots") for each in some
        }
    finally:
        model.train(trains)
    return [
        {"beginning": tokenizer.decode(one.prompt_ids, skip_special_tokens=True), "text": found[one.id]}
        for one in requests
    ]
