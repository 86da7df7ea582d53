"""Rollouts: answers that a model in training writes, as tokens."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import TEACHER
from potstill.data.prompts.render import ends_of
from potstill.data.row_teachers import TEACHERS
from potstill.errors import UserError
from potstill.generation.decoding import Decoding, Key, Task, TokenChoice
from potstill.generation.generate import NamedModel, ResponseWriter, ids_without_token, writer_of
from potstill.generation.row_batch import continues_rows
from potstill.generation.vllm_writer import VllmWriter, check_installed, writes_with_vllm
from potstill.models.size import positions_of
from potstill.on_policy.prompts import SamplePrompt
from potstill.recipe.on_policy import OnPolicy


@dataclass(frozen=True)
class Rollout:
    """An answer that the student wrote."""

    prompt: SamplePrompt
    ids: list[int]
    """Its tokens. The last is an end token if the answer is finished."""
    finished: bool
    """Whether it ends with an end token, and not at the limit."""
    written_at: int
    """The number of optimizer steps that the student had taken."""
    log_probs: list[float] | None = None
    """The log-probability that the student gave each token when the answer was first learned; None before that."""

    def sample(self) -> dict[str, Any]:
        """The prompt and the answer as a sample. The answer alone is learned, its last token too."""
        sample = _read_by("", self.prompt.student, self.ids)
        if self.prompt.teacher is not None:
            sample |= _read_by(TEACHER, self.prompt.teacher, self.ids)
        return sample if self.prompt.taught_by is None else sample | {TEACHERS: self.prompt.taught_by}

    def as_json(self) -> dict[str, Any]:
        """The rollout as a plain object."""
        return {**vars(self), "prompt": vars(self.prompt)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "Rollout":
        """The rollout of such an object."""
        return cls(**{**given, "prompt": SamplePrompt(**given["prompt"])})


def _read_by(reader: str, prompt: list[int], ids: list[int]) -> dict[str, Any]:
    return {f"{reader}input_ids": [*prompt, *ids], f"{reader}labels": [IGNORE_INDEX] * len(prompt) + ids}


def check_can_write(config: Any, tokenizer: Any, settings: OnPolicy) -> list[int]:
    """Refuse a student that cannot write answers; it reads only the student's configuration.

    Returns:
        The tokens that end an answer.

    Raises:
        UserError: the tokenizer has no token that ends an answer, or the answers do not fit the model.
    """
    room, most = positions_of(config.get_text_config()), settings.max_new_tokens
    if room is not None and most >= room:
        raise UserError(
            f"`on_policy.max_new_tokens` is {most:,}, and the student has only {room:,} positions, for the prompt and "
            "the answer together; lower it"
        )
    return ends_of(tokenizer)


class RolloutWriter:
    """Writes answers with a model that is in training, as it is at that moment.

    Each answer draws with its own random numbers, which come from the seed and the answer's key. So the random state of
    the process stays unchanged, and a resumed training writes what an uninterrupted one would have written.

    Args:
        model: the model, without the wrappers of parallel training.
        tokenizer: its tokenizer.
        settings: how it writes.
        seed: the seed of the draws.
        vocabulary: only ids below this number are written. None: all ids that have a token.

    Raises:
        UserError: the tokenizer has no token that ends an answer, or the answers do not fit the model.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, settings: OnPolicy, seed: int, vocabulary: int | None
    ) -> None:
        if tokenizer is None:
            raise UserError("`on_policy` writes answers, which needs the tokenizer; give it as `processing_class`")
        self.ends = check_can_write(model.config, tokenizer, settings)
        config = model.config.get_text_config()
        self._asked, self._settings = NamedModel(model, tokenizer, "the student"), settings
        self.room = positions_of(config)
        """The positions of the model; None where they are not limited."""
        never = ids_without_token(model, tokenizer)
        if vocabulary is not None:
            never = sorted({*never, *range(vocabulary, config.vocab_size)})
        most = settings.max_new_tokens
        how = settings.sampling.model_dump() | {"seed": seed, "engine": settings.engine}
        decoding = Decoding(most, settings.batch_size, settings.samples, **how)
        self._choose = TokenChoice(decoding, self.ends, never)
        self._together: bool | None = None
        check_installed(settings.engine, "on_policy.engine")
        self._vllm: VllmWriter | None = None

    def fits(self, prompt: SamplePrompt) -> bool:
        """Whether the model has room for a whole answer to a prompt."""
        return self.room is None or len(prompt.student) + self._settings.max_new_tokens <= self.room

    def write(self, asked: Mapping[Key, SamplePrompt], step: int) -> dict[Key, Rollout]:
        """Write an answer to each prompt, in the order of the keys.

        Args:
            asked: prompts that fit. Keys with one name have one prompt, which is read once.
            step: the number of steps that the model has taken.
        """
        if not asked:
            return {}
        todo = [Task(key, prompt.student) for key, prompt in asked.items()]
        # Those of one name stay together.
        todo.sort(key=lambda one: -len(one.prompt_ids))
        found: dict[Key, Rollout] = {}
        with as_in_use(self._asked.model):
            writer = self._writer(todo)
            blocks = (todo[at : at + writer.block_size] for at in range(0, len(todo), writer.block_size))
            for one in (one for block in blocks for ended in writer.write(block) for one in ended):
                found[one.key] = Rollout(asked[one.key], one.ids, one.ids[-1] in self.ends, step)
        return {key: found[key] for key in asked}

    def close(self) -> None:
        """Give back the memory that writing has taken; what is written later takes it again."""
        if self._vllm is not None:
            self._vllm.close()

    def _writer(self, todo: Sequence[Task]) -> ResponseWriter:
        """The writer of these answers, with the weights as they are now."""
        model, size, longest = self._asked.model, self._settings.batch_size, len(todo[0].prompt_ids) + self._choose.most
        if self._together is None:
            self._together = continues_rows(model, self.room or longest)
            if writes_with_vllm(self._settings.engine, model, self._asked.name):
                self._vllm = VllmWriter(model, self._choose, size)
        if self._vllm is None:
            return writer_of(self._asked, self._choose, size, todo, self._together)
        self._vllm.take_weights(longest)
        return self._vllm


@contextmanager
def as_in_use(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients, as a model is used and not trained. Each module's mode is restored."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def chosen_rows(sizes: Sequence[int], count: int, seed: int) -> list[list[int]]:
    """Choose ``count`` rows of batches of these sizes at random: the chosen rows of each batch, in order.

    Rows that follow each other may come from alternating sources, so a fixed pattern would choose from one of them.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(sum(sizes), generator=generator)[:count].tolist()
    found: list[list[int]] = []
    first = 0
    for size in sizes:
        found.append(sorted(at - first for at in order if first <= at < first + size))
        first += size
    return found
