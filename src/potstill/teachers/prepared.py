"""PreparedTeacher teachers: what was found, converted and pinned, loaded again by later stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.device import device, run_dtype
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.models.quantization import quantization_config, quantization_of
from potstill.models.size import check_length
from potstill.targets import Provenance
from potstill.teachers.llama_cpp import LlamaCppModel

POINTER = "teacher.json"


@dataclass(frozen=True)
class PreparedTeacher:
    """A teacher that the `teachers` stage has made ready."""

    name: str
    source: str
    """The folder or the hub's name that transformers loads."""
    commit: str | None
    """The commit of the hub's repository."""
    fingerprint: str
    """What tells these weights, as they are run, from any others: the hub's commit or a digest of the files, and with
    it the quantisation or the engine, where they change what the teacher says."""
    dtype: str
    gguf: str | None = None
    quantization: dict[str, Any] | None = None
    device_map: str | dict[str, int | str] | None = None
    llama_cpp: str | None = None
    """The GGUF file that llama.cpp runs, where it does."""
    threads: int | None = None

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> "PreparedTeacher":
        """Read what :func:`prepare` wrote; unless told, the folder's name is the teacher's."""
        saved = read_json(folder / POINTER)
        return cls(name or folder.name, **saved | {"source": saved["source"] or str(folder)})

    @property
    def _loading(self) -> dict[str, Any]:
        return {"revision": self.commit} | ({"gguf_file": self.gguf} if self.gguf else {})

    def tokenizer(self) -> Any:
        """The teacher's tokenizer."""
        return AutoTokenizer.from_pretrained(self.source, **self._loading)

    def config(self) -> Any:
        """The teacher's configuration."""
        return AutoConfig.from_pretrained(self.source, **self._loading)

    def provenance(self, template: str = "none", tokenizer: Any = None) -> Provenance:
        """What a store of this teacher's targets must have come from.

        Args:
            template: how it was asked, if it was.
            tokenizer: what made the ids that it was shown; default: its own.
        """
        made_by = tokenizer_fingerprint(self.tokenizer() if tokenizer is None else tokenizer)
        return Provenance(teacher=self.name, revision=self.fingerprint, tokenizer=made_by, template=template)

    def model(self, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """The teacher itself, frozen, where it runs; told a dtype, its plain weights in that, on this machine's device.

        Raises:
            UserError: plain weights are wanted of a checkpoint that is quantised already.
        """
        if dtype is not None:
            return self._plain(dtype)
        if self.llama_cpp is not None:
            return LlamaCppModel(Path(self.llama_cpp), self.config(), self.threads, self.name)
        quantised = self.quantization is not None or quantization_of(self.config()) is not None
        # What is quantised must not be moved, and what spans devices cannot be.
        where: Any = self.device_map or ({"": device()} if quantised else None)
        how = {"dtype": run_dtype(self.dtype), "device_map": where}
        if self.quantization is not None:
            how["quantization_config"] = quantization_config(self.quantization, f"teachers.{self.name}.quantization")
        model = AutoModelForCausalLM.from_pretrained(self.source, **how, **self._loading)
        return (model.to(device()) if where is None else model).eval().requires_grad_(False)

    def _plain(self, dtype: torch.dtype) -> PreTrainedModel:
        if quantization_of(self.config()) is not None:
            raise UserError(
                f"`teachers.{self.name}` holds quantised weights, of which no student can be made; name the model that "
                "they were made of"
            )
        source, loading = self.source, self._loading
        if self.llama_cpp is not None:
            source, loading = str(Path(self.llama_cpp).parent), {"gguf_file": Path(self.llama_cpp).name}
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **loading)
        return model.to(device()).eval().requires_grad_(False)

    def parameters(self) -> int:
        """How many weights the teacher has; none of them is loaded."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config())
        return sum(weight.numel() for weight in model.parameters())

    def check_length(self, sequence_length: int, key: str) -> None:
        """Refuse sequences that are longer than the model's positions."""
        check_length(self.config(), sequence_length, f"teacher {self.name!r}", key)
