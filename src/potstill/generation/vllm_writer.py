"""vLLM writer: vLLM writes responses in this process, with the weights of a model of transformers.

One mechanism serves frozen models and models in training: vLLM starts with the model's configuration, and the weights
are handed over before it writes.
"""

import copy
import importlib.util
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from potstill import distributed
from potstill.device import device
from potstill.errors import UserError, first_line
from potstill.generation.decoding import Task, TokenChoice, Written
from potstill.models.merged_weights import merged_weights, plain_model, why_not_merged
from potstill.models.size import cached_numbers, positions_of
from potstill.recipe.section import WritingEngine

_BATCHES = 8
"""The size of a block, in batches. vLLM replaces finished rows itself, and a larger block has its last, half empty
steps less often, but a stop costs its whole block."""
_NEVER = -100.0
"""What is added to the logits of ids that are never chosen: the least that vLLM takes."""
_PAGE = 128
"""In tokens: at least vLLM's, for every device."""


def check_installed(engine: WritingEngine, key: str) -> None:
    """Refuse vLLM where it is not installed.

    Args:
        engine: what the recipe asks for.
        key: the recipe's key for it.

    Raises:
        UserError: vLLM is asked for, and is not installed.
    """
    if engine == "vllm" and not is_installed():
        raise UserError(
            f"`{key}: vllm` needs vLLM, which is not installed here: pip install vllm, or choose `transformers`"
        )


def writes_with_vllm(engine: WritingEngine, model: PreTrainedModel, who: str) -> bool:
    """Whether vLLM writes for a model: where it is asked for, or by itself on a CUDA GPU where it is installed.

    Args:
        engine: what the recipe asks for.
        model: the model.
        who: what messages call the model.

    Raises:
        UserError: vLLM is asked for, and cannot write for this model or is not installed.
    """
    if engine == "transformers":
        return False
    check_installed(engine, "engine")
    if engine == "auto" and not (is_installed() and device().type == "cuda"):
        return False
    why = _unfit(model)
    if engine == "vllm" and why is not None:
        raise UserError(f"`engine: vllm` cannot write for {who}, because {why}; choose `engine: transformers`")
    return why is None


def is_installed() -> bool:
    """Whether vLLM is installed here."""
    return importlib.util.find_spec("vllm") is not None


def _unfit(model: PreTrainedModel) -> str | None:
    """Why vLLM cannot write for a model, as a clause."""
    if distributed.world_size() > 1:
        return "it would have to run in each of several processes"
    why = why_not_merged(model)
    if why is not None:
        return why
    plain = plain_model(model)
    if not isinstance(plain, PreTrainedModel):
        return "its weights are not those of a model of transformers"
    if getattr(plain, "_hf_peft_config_loaded", False):
        return "its adapter was loaded by transformers, which cannot merge it"
    if getattr(plain, "is_quantized", False):
        return "its weights are quantised"
    if len({weight.device for weight in plain.parameters()}) > 1:
        return "its weights lie on several devices"
    if not cached_numbers(plain.config):
        return "it has layers without attention"
    name = type(plain).__name__
    known = _vllm().ModelRegistry.models.get(name)
    # The others run in vLLM by transformers' own classes, which vLLM changes, so that this process could not use them.
    if known is None or known.module_name.endswith(".transformers"):
        return f"vLLM has no {name} of its own"
    return None


class VllmWriter:
    """Writes responses with vLLM, which has its own copy of a model's weights.

    Each response draws with a seed of its own, so it depends neither on its neighbours nor on the size of the batch, as
    far as vLLM's sums do not: they are rounded by the number of rows, and by the GPU. Its draws are not those of the
    other writers.

    vLLM reserves memory for the keys and values of all rows at their greatest length.

    Args:
        model: a model that :func:`writes_with_vllm`. A LoRA adapter is merged into the weights that vLLM gets.
        choose: how tokens are chosen, and what ends the responses.
        size: the greatest number of responses written at a time.
    """

    def __init__(self, model: PreTrainedModel, choose: TokenChoice, size: int) -> None:
        self.block_size = _BATCHES * size
        self._model, self._choose, self._size = model, choose, size
        self._llm: Any = None
        self._longest = 0
        self._group_is_ours = False

    def take_weights(self, longest: int) -> None:
        """Give vLLM the model's weights as they are now.

        Args:
            longest: the most tokens of a prompt and its response.

        Raises:
            UserError: vLLM cannot run the model here.
        """
        if longest > self._longest:
            self.close()
            self._start(longest)
        with _apart():
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(self._model)})
        self._llm.reset_prefix_cache()

    def write(self, tasks: Sequence[Task]) -> Iterator[list[Written]]:
        """Write a block of responses, and yield them."""
        prompts = [{"prompt_token_ids": one.prompt_ids} for one in tasks]
        with _apart():
            found = self._llm.generate(prompts, [self._settings(one) for one in tasks], use_tqdm=False)
        yield [Written(task.key, list(one.outputs[0].token_ids)) for task, one in zip(tasks, found, strict=True)]

    def close(self) -> None:
        """End vLLM, and give its memory back."""
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm, self._longest = None, 0
        if self._group_is_ours:
            cleanup_dist_env_and_memory()

    def _start(self, longest: int) -> None:
        vllm = _vllm()
        self._longest = _rounded(longest, positions_of(self._model.config.get_text_config()))
        dtype = _dtype(self._model)
        per_token = cached_numbers(self._model.config) * dtype.itemsize
        # One row more, because vLLM keeps a page for itself.
        cache = (self._size + 1) * -(-self._longest // _PAGE) * _PAGE * per_token
        self._group_is_ours = not torch.distributed.is_initialized()
        with tempfile.TemporaryDirectory() as folder, _apart():
            config = copy.deepcopy(self._model.config)
            config.architectures = [type(plain_model(self._model)).__name__]
            config.save_pretrained(folder)
            try:
                self._llm = vllm.LLM(
                    folder,
                    load_format="dummy",
                    model_impl="vllm",
                    skip_tokenizer_init=True,
                    generation_config="vllm",
                    dtype=str(dtype).removeprefix("torch."),
                    max_model_len=self._longest,
                    max_num_seqs=self._size,
                    kv_cache_memory_bytes=cache,
                    # Beside a training it gets what is left. It needs no more than the weights and this cache.
                    gpu_memory_utilization=_free_share(),
                    # Recorded graphs save a GPU much, and cost a CPU minutes of compiling.
                    enforce_eager=device().type != "cuda",
                )
            except (RuntimeError, ValueError) as error:
                raise UserError(
                    f"vLLM cannot run {type(self._model).__name__} here ({first_line(error)}); choose `engine: "
                    "transformers`"
                ) from error

    def _settings(self, task: Task) -> Any:
        decoding = self._choose.decoding
        return _vllm().SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k or 0,
            seed=self._choose.seed(task.key),
            max_tokens=self._choose.most,
            stop_token_ids=sorted(self._choose.ends),
            ignore_eos=True,
            detokenize=False,
            logit_bias=dict.fromkeys(self._choose.never, _NEVER) or None,
        )


def _vllm() -> Any:
    """The library, which reads these settings when it is imported, or when it starts."""
    # In a process of its own, weights could not be handed over as they lie in memory.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # Otherwise it tells its authors over the network what it runs.
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm

    return vllm


def _rounded(longest: int, positions: int | None) -> int:
    """A greater length, so that vLLM does not start again for each prompt that is a little longer."""
    rounded = 1 << (longest - 1).bit_length()
    return rounded if positions is None else max(longest, min(rounded, positions))


def _dtype(model: PreTrainedModel) -> torch.dtype:
    """The format in which a model computes."""
    kind = device().type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


def _free_share() -> float:
    if device().type != "cuda":
        return 0.9
    free, total = torch.cuda.mem_get_info(device())
    return 0.9 * free / total


@contextmanager
def _apart() -> Iterator[None]:
    """Outside of a training's autocast and random numbers. vLLM seeds all random numbers of a process anew."""
    kept, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), torch.autocast(device().type, enabled=False):
            yield
    finally:
        random.setstate(kept)
        np.random.set_state(of_numpy)
