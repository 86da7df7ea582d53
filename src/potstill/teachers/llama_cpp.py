"""Teachers that llama.cpp runs: a GGUF file in llama.cpp's own quantised kernels.

llama.cpp gives logits for every position, and text. It does not show hidden states.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutput

from potstill.data.labels import supervised_mask
from potstill.errors import UserError

SHORTEST_CONTEXT = 256
"""In tokens. A context grows by doubling, because each change of its length opens the file again."""


class LlamaCppModel(nn.Module):
    """A GGUF model with the interface of a causal language model of transformers.

    Rows are read one by one, without their padding, each with an empty cache.

    Args:
        file: the GGUF file, or the first file of a model in several parts.
        config: the model's configuration, as transformers reads it from the file.
        threads: the number of threads that compute; default: as many as torch uses.
        name: the teacher's name, for messages.

    Raises:
        UserError: llama-cpp-python is not installed.
    """

    is_quantized = True
    """As in transformers: it cannot be moved, and its activations are rounded."""
    most_rows = 1
    """How many rows `generate` writes faster together than one by one."""

    def __init__(self, file: Path, config: Any, threads: int | None, name: str) -> None:
        super().__init__()
        check_installed(name)
        self.config, self._file, self._threads, self._name = config, file, threads, name
        self._opened: Any = None
        self._close: Callable[[], Any] = lambda: None

    @property
    def device(self) -> torch.device:
        """The device of inputs and logits; llama.cpp chooses itself where it computes."""
        return torch.device("cpu")

    def tie_weights(self) -> None:
        """Do nothing. lm-eval calls this for every model, and llama.cpp's weights cannot change."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **others: Any) -> CausalLMOutput:
        """Logits [B, T, V] in float32; logits of padding are 0."""
        self._check_positions(attention_mask, others.get("position_ids"))
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for row, (ids, real) in enumerate(zip(input_ids, _real(input_ids, attention_mask), strict=True)):
            logits[row, real] = self._row(ids[real].tolist())
        return CausalLMOutput(logits=logits.to(input_ids.device))

    def supervised_logits(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "N V"]:
        """The logits of a batch's N supervised tokens, row-major; no other logits are kept in memory."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        self._check_positions(mask, batch.get("position_ids"))
        wanted = supervised_mask(batch).cpu()
        rows = [torch.empty(0, self.config.vocab_size)]
        for row, real, taught in zip(ids.cpu(), _real(ids, mask), wanted, strict=True):
            if taught.any():
                rows.append(self._row(row[real].tolist())[taught[real]])
        return torch.cat(rows).to(ids.device)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        generation_config: GenerationConfig,
        logits_processor: Sequence[LogitsProcessor] = (),
        streamer: BaseStreamer | None = None,
    ) -> Tensor:
        """Continue prompts that are padded on the left, each up to and including an end token [B, T + new].

        Of the configuration, the settings that choose tokens (temperature, top_k, top_p, suppressed tokens) and that
        end a text apply, by transformers' own rules; torch's generator draws. Processors of the caller's come last.
        A streamer gets the tokens of one row as they come.
        """
        config, real = generation_config, _real(input_ids, attention_mask)
        choices = LogitsProcessorList([*_choices(config), *logits_processor])
        rows = [ids[kept].tolist() for ids, kept in zip(input_ids.cpu(), real, strict=True)]
        written = [self._text(row, config, choices, streamer) for row in rows]
        longest = max(map(len, written))
        rows = [row + [config.pad_token_id] * (longest - len(row)) for row in written]
        return torch.cat([input_ids, torch.tensor(rows, device=input_ids.device).view(len(rows), longest)], 1)

    def _text(
        self,
        prompt: list[int],
        config: GenerationConfig,
        choices: LogitsProcessorList,
        streamer: BaseStreamer | None = None,
    ) -> list[int]:
        model, written = self._model(len(prompt) + config.max_new_tokens), list[int]()
        model.reset()
        model.eval(prompt)
        if streamer is not None:
            streamer.put(torch.tensor(prompt))
        while len(written) < config.max_new_tokens:
            scores = torch.from_numpy(model.scores[model.n_tokens - 1].copy())[None]
            scores = choices(torch.tensor([prompt + written]), scores)
            drawn = torch.multinomial(scores.softmax(-1), 1) if config.do_sample else scores.argmax(-1)
            written.append(int(drawn))
            if streamer is not None:
                streamer.put(torch.tensor(written[-1:]))
            if written[-1] in config.eos_token_id:
                break
            model.eval(written[-1:])
        if streamer is not None:
            streamer.end()
        return written

    def _row(self, tokens: list[int]) -> Float[Tensor, "T V"]:
        model = self._model(len(tokens))
        # Start at position 0 again; `eval` then empties the cache from there on.
        model.reset()
        model.eval(tokens)
        return torch.from_numpy(model.scores[: len(tokens)].copy())

    def _model(self, length: int) -> Any:
        """llama.cpp's model with a context of at least `length` tokens."""
        if self._opened is not None and self._opened.n_ctx() >= length:
            return self._opened
        from llama_cpp import Llama, llama_supports_gpu_offload

        grown = max(SHORTEST_CONTEXT, 1 << (length - 1).bit_length())
        context = max(length, min(grown, getattr(self.config, "max_position_embeddings", grown)))
        self._close()
        self._opened = None
        try:
            opened = Llama(
                str(self._file),
                n_ctx=context,
                n_threads=self._threads or torch.get_num_threads(),
                n_threads_batch=self._threads or torch.get_num_threads(),
                n_gpu_layers=-1 if llama_supports_gpu_offload() else 0,
                logits_all=True,
                verbose=False,
            )
        except ValueError as error:
            raise UserError(f"`teachers.{self._name}.gguf`: llama.cpp cannot open {self._file} ({error})") from error
        # `finalize` closes it early enough: late in the interpreter's exit, the functions that close it are gone.
        self._close = weakref.finalize(self, opened.close)
        if opened.n_vocab() != self.config.vocab_size:
            raise UserError(
                f"`teachers.{self._name}.gguf`: llama.cpp finds {opened.n_vocab():,} tokens in {self._file}, but "
                f"transformers finds {self.config.vocab_size:,}; use `engine: transformers`"
            )
        self._opened = opened
        return opened

    def _check_positions(self, mask: Tensor | None, positions: Tensor | None) -> None:
        """Refuse positions that differ from llama.cpp's own, which count from each row's start."""
        if positions is None:
            return
        real = _real(positions, mask)
        counted = real.cumsum(1) - 1
        if not torch.equal(positions.cpu()[real], counted[real]):
            raise UserError(f"teacher {self._name!r} runs in llama.cpp, which counts positions from each row's start")


def _choices(config: GenerationConfig) -> LogitsProcessorList:
    found = LogitsProcessorList()
    if config.suppress_tokens:
        found.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
    if config.do_sample:
        found.append(TemperatureLogitsWarper(config.temperature))
        found += [TopKLogitsWarper(config.top_k)] if config.top_k else []
        found += [TopPLogitsWarper(config.top_p)] if config.top_p < 1 else []
    return found


def check_installed(name: str) -> None:
    """Check that llama-cpp-python can be imported.

    Raises:
        UserError: it cannot.
    """
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"`teachers.{name}.engine: llama_cpp` needs llama-cpp-python, which cannot be imported here: "
            "pip install 'potstill[llama-cpp]'"
        ) from error


def _real(ids: Tensor, mask: Tensor | None) -> Tensor:
    """The mask of tokens that are not padding [B, T], on the CPU."""
    return torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask.cpu().bool()
