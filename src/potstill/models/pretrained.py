"""Pretrained models: the one gate through which configurations, tokenizers and weights are loaded.

transformers is forgiving: it draws missing weights at random, ignores weights that are left over, and loads what is no
causal language model as one. Here a model is what its files say, or it is refused with a sentence.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.errors import UserError, first_line, is_out_of_memory
from potstill.files.named_files import named_folder
from potstill.models.causality import check_causal
from potstill.models.folder import ADAPTER, flaw, flaw_of_config, tensor_count
from potstill.models.quantization import quantization_of
from potstill.models.saving import mend_generation_config

NAMED_AT_MOST = 3

OLD_BUFFERS = re.compile(r"(^|\.)((attn|attention)\.(bias|masked_bias|causal_mask)|inv_freq)$")
"""Causal masks and rotary frequencies, which older versions of transformers saved. Models compute them now."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from."""

    name: str
    """A folder, or a name on the hub."""
    what: str
    """What messages call it, such as "`teachers.big.model`"."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """`revision` and `gguf_file`, as transformers takes them."""

    @property
    def folder(self) -> Path | None:
        """The folder on this machine, if there is one of this name."""
        return named_folder(self.name)

    @property
    def place(self) -> str:
        """The folder, if there is one of this name, or else the name on the hub."""
        return str(self.folder or self.name)

    def config(self) -> Any:
        """The configuration of a causal language model.

        Raises:
            UserError: it cannot be loaded, or is not that of a causal language model.
        """
        if self.folder is not None and not self._is_gguf:
            wrong = flaw_of_config(self.folder / "config.json")
            if wrong is not None and (self.folder / ADAPTER).is_file():
                wrong = "it holds an adapter alone, which must be merged into its model first"
            if wrong is not None:
                raise self._not_whole(wrong)
        with self._explaining():
            config = AutoConfig.from_pretrained(self.place, trust_remote_code=False, **self.how)
        if getattr(config, "is_encoder_decoder", False):
            raise self._no_causal_model(f"a {config.model_type}, which is an encoder-decoder")
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise self._no_causal_model(f"a {config.model_type}, of which transformers has no causal language model")
        return config

    def commit(self) -> str | None:
        """The commit of the hub's repository to which the revision leads; None for a folder.

        Raises:
            UserError: the configuration, or the GGUF file, can neither be downloaded nor found in the cache.
        """
        if self.folder is not None:
            return None
        with self._explaining():
            file = hf_hub_download(
                self.name, self.how.get("gguf_file", "config.json"), revision=self.how.get("revision")
            )
        # In the cache, a repository's files lie in `snapshots/COMMIT/`.
        return next(one.name for one in Path(file).parents if one.parent.name == "snapshots")

    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            UserError: it cannot be loaded, or there is none.
        """
        with self._explaining("its tokenizer cannot be loaded: "):
            tokenizer = AutoTokenizer.from_pretrained(self.place, trust_remote_code=False, **self.how)
            # Without a file, some of them are made all the same, with no tokens but special ones.
            if not tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens):
                raise ValueError("there are no files of it")
        return tokenizer

    def weights(self, **how: Any) -> PreTrainedModel:
        """The model with the weights of its files, not yet proven to be causal.

        Args:
            **how: as `from_pretrained` takes it.

        Raises:
            UserError: it cannot be loaded, or its weights do not fill its configuration exactly.
        """
        config = self.config()
        self._check_folder(config)
        with self._explaining(), _without_report():
            model, found = AutoModelForCausalLM.from_pretrained(
                self.place,
                trust_remote_code=False,
                output_loading_info=True,
                # The report names tensors of another shape, instead of an error that names none.
                ignore_mismatched_sizes=True,
                **self.how,
                **how,
            )
        self._check_weights(model, config, found)
        mend_generation_config(model, self.what)
        return model

    def model(self, to: torch.device | str | None = None, **how: Any) -> PreTrainedModel:
        """The model, proven to be a causal language model, on a device.

        Args:
            to: its device; None: where `from_pretrained` puts it.
            **how: as `from_pretrained` takes it.

        Raises:
            UserError: as :meth:`weights`, or it is not a causal language model.
        """
        model = self.weights(**how)
        model = model if to is None else model.to(to)
        check_causal(model, self.what)
        return model

    def without_weights(self, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """The model on the meta device, made of its configuration.

        Raises:
            UserError: it has no configuration of a causal language model.
        """
        config = self.config()
        with self._explaining(), torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)

    def check(self) -> None:
        """Refuse what can be refused before the weights are read. A model on the hub is not downloaded for that.

        Weights that do not fill the configuration are found by the headers of their files. A model is loaded only if
        one of its modules says that it is not causal.

        Raises:
            UserError: configuration, tokenizer or weights are missing or damaged, do not fit each other, or are not
                those of a causal language model.
        """
        config = self.config()
        if (rows := getattr(config.get_text_config(), "vocab_size", None)) is not None:
            check_tokens(self.tokenizer(), rows, self.what)
        if self._is_gguf:
            return
        if self.folder and quantization_of(config) is None:
            model = self.weights(device_map="meta")
        else:
            model = self.without_weights()
        if any(getattr(module, "is_causal", True) is False for module in model.modules()):
            self.model()

    @contextmanager
    def _explaining(self, part: str = "") -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        # Damaged files raise errors of any kind, of transformers and of every library below it.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = f"{part}{_reason(error)}"
            if self._is_gguf:
                raise UserError(
                    f"{self.what}: {self.how['gguf_file']} cannot be read as a GGUF model: {reason}; get it again, or "
                    "name another"
                ) from error
            if self.folder:
                raise self._not_whole(reason) from error
            raise UserError(
                f"{self.what}: {self.name!r} is neither a folder here nor a model that can be loaded from the hub "
                f"({reason})"
            ) from error

    def _check_folder(self, config: Any) -> None:
        folder = self.folder
        if folder is None or self._is_gguf:
            return
        wrong = flaw(folder)
        if wrong is not None:
            raise UserError(f"{self.what}: {folder} {wrong}; copy it again, or name another")
        with self._explaining():
            tensors = tensor_count(folder)
        # A model of so many layers would take minutes to be made, before its weights are compared.
        layers = getattr(config.get_text_config(), "num_hidden_layers", None)
        if isinstance(layers, int) and tensors is not None and layers > tensors:
            raise self._wrong_weights(f"its config.json has {layers:,} layers, and its files have {tensors:,} tensors")

    def _check_weights(self, model: PreTrainedModel, config: Any, found: Mapping[str, Any]) -> None:
        base = type(model.base_model).__name__
        if model.base_model is not model and base in (getattr(config, "architectures", None) or ()):
            raise self._no_causal_model(f"a {base}, a base model without a head (`architectures` in its config.json)")
        buffers = {name for name, _ in model.named_buffers()}
        left = [name for name in found["unexpected_keys"] if name not in buffers and not OLD_BUFFERS.search(name)]
        # A quantised checkpoint also holds scales for other engines.
        left = left if quantization_of(config) is None else []
        other = [f"{name} {list(theirs)} for {list(ours)}" for name, theirs, ours in found["mismatched_keys"]]
        flaws = (
            ("lack {} that config.json asks for", found["missing_keys"]),
            ("have {} that config.json does not ask for", left),
            ("have {} of another shape than config.json says", other),
        )
        said = [words.format(_named(names)) for words, names in flaws if names]
        if said:
            raise self._wrong_weights(f"its files {', and '.join(said)}")

    @property
    def _is_gguf(self) -> bool:
        return "gguf_file" in self.how

    def _not_whole(self, reason: str) -> UserError:
        return UserError(f"{self.what}: {self.place} is not a whole model: {reason}; copy it again, or name another")

    def _wrong_weights(self, reason: str) -> UserError:
        return UserError(
            f"{self.what}: {self.place} is not a whole model: {reason}; name one whose weights fit its config.json"
        )

    def _no_causal_model(self, reason: str) -> UserError:
        return UserError(f"{self.what}: {self.place} is {reason}; name a causal language model")


def check_tokens(tokenizer: Any, rows: int, what: str) -> None:
    """Refuse a tokenizer that gives ids for which a model has no embedding.

    Args:
        tokenizer: the tokenizer, or None.
        rows: the number of the model's embeddings.
        what: the model's name in messages.

    Raises:
        UserError: naming both numbers.
    """
    ids = max(tokenizer.get_vocab().values(), default=-1) + 1 if tokenizer is not None else 0
    if ids > rows:
        raise UserError(
            f"{what}: its tokenizer has ids up to {ids - 1:,}, but the model has only {rows:,} embeddings; use the "
            f"tokenizer that the model was trained with, or resize its embeddings to {ids:,}"
        )


def _named(names: Any) -> str:
    shown = sorted(names)[:NAMED_AT_MOST]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    return f"{len(names):,} weight{'s' if len(names) > 1 else ''} ({', '.join(shown)}{more})"


def _reason(error: Exception) -> str:
    text = str(error)
    if "custom code" in text or "trust_remote_code" in text:
        return "it needs code of its own (`auto_map` in its config.json), and potstill runs none"
    if isinstance(error, UnpicklingError):
        return "its weights are a pickle that holds more than tensors, and potstill runs none"
    if unknown := re.search(r"has model type `(.*)` but", text):
        return f"its `model_type` {unknown[1]!r} is unknown to this version of transformers"
    if isinstance(error, KeyError):
        return f"it has a value that transformers does not know, or lacks a field: {text}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines and lines[0].endswith(":") else first_line(error)


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of missing weights, which we tell in a sentence."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in str(record.msg)
