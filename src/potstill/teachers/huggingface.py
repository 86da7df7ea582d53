"""Teachers that transformers can load: found, converted where they are GGUF, pinned, and loaded again for later stages.

A teacher is *prepared* once into the run folder. A GGUF file becomes a plain Hugging Face folder, because reading one
takes a second per ten million parameters each time; any other teacher stays where it is and is only pointed at.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.files import digest, read_json, remove, sha256, write_json
from potstill.hardware import device, fast_bfloat16
from potstill.packages import package_files
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher, Teacher
from potstill.words import UserError, first_line

POINTER = "teacher.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


@dataclass(frozen=True)
class Prepared:
    """A teacher that the `teachers` stage has made ready."""

    name: str
    source: str
    """The folder or the hub's name that transformers loads."""
    commit: str | None
    """The commit of the hub's repository."""
    fingerprint: str
    """What tells these weights from any others: the hub's commit, or a digest of the files."""
    dtype: str
    gguf: str | None = None

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> "Prepared":
        """Read what :func:`prepare` wrote; unless told, the folder's name is the teacher's."""
        saved = read_json(folder / POINTER)
        return cls(
            name or folder.name,
            saved["source"] or str(folder),
            saved["commit"],
            saved["fingerprint"],
            saved["dtype"],
            saved["gguf"],
        )

    @property
    def _loading(self) -> dict[str, Any]:
        return {"revision": self.commit} | ({"gguf_file": self.gguf} if self.gguf else {})

    def tokenizer(self) -> Any:
        """The teacher's tokenizer."""
        return AutoTokenizer.from_pretrained(self.source, **self._loading)

    def config(self) -> Any:
        """The teacher's configuration."""
        return AutoConfig.from_pretrained(self.source, **self._loading)

    def model(self, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """The teacher itself, frozen, on this machine's device; in its own dtype unless told."""
        model = AutoModelForCausalLM.from_pretrained(self.source, dtype=dtype or run_dtype(self.dtype), **self._loading)
        return model.to(device()).eval().requires_grad_(False)

    def parameters(self) -> int:
        """How many weights the teacher has; none of them is loaded."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config())
        return sum(weight.numel() for weight in model.parameters())

    def check_length(self, sequence_length: int, key: str) -> None:
        """Refuse sequences that are longer than the model's positions."""
        check_length(self.config(), sequence_length, f"teacher {self.name!r}", key)


def prepare(name: str, teacher: Teacher, folder: Path) -> Path:
    """Find a teacher, convert it if it is GGUF, pin it, and write where it is into `folder`.

    Raises:
        UserError: it cannot be found or loaded, or it is no causal language model.
    """
    source, gguf = _source(name, teacher)
    kept: str | None = source
    commit = None
    if gguf is not None and Path(source).is_dir():
        fingerprint = sha256(Path(source) / gguf)
        _convert(name, source, gguf, folder)
        kept = gguf = None
    elif Path(source).is_dir():
        found = _weights_of(Path(source))
        if found is None:
            raise UserError(f"`teachers.{name}.model`: the folder {source} holds no weights ({', '.join(WEIGHTS)})")
        fingerprint = found
    else:
        assert isinstance(teacher, ModelTeacher)
        commit = fingerprint = _commit(name, source, teacher.revision, gguf)
    folder.mkdir(parents=True, exist_ok=True)
    pointer = {"source": kept, "commit": commit, "fingerprint": fingerprint, "dtype": teacher.dtype, "gguf": gguf}
    write_json(folder / POINTER, pointer)
    return folder


def prepare_here(folder: Path) -> None:
    """Make a teacher of a plain Hugging Face folder inside the run."""
    fingerprint = _weights_of(folder)
    assert fingerprint is not None, f"{folder} holds no weights"
    pointer = {"source": None, "commit": None, "fingerprint": fingerprint, "dtype": "auto", "gguf": None}
    write_json(folder / POINTER, pointer)


def _weights_of(folder: Path) -> str | None:
    """A digest of a folder's weights; None where there are none."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    return digest({file.name: sha256(file) for file in files}) if files else None


def _source(name: str, teacher: Teacher) -> tuple[str, str | None]:
    if isinstance(teacher, PackagedTeacher):
        file = package_files(teacher.package, teacher.gguf, f"teachers.{name}", "gguf")[0]
        return str(file.parent), file.name
    folder = Path(teacher.model).expanduser()
    if folder.is_dir():
        if teacher.gguf and not (folder / teacher.gguf).is_file():
            raise UserError(f"`teachers.{name}.gguf`: there is no file {teacher.gguf!r} in {folder}")
        return str(folder.resolve()), teacher.gguf
    return teacher.model, teacher.gguf


def _commit(name: str, source: str, revision: str | None, gguf: str | None) -> str:
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, **({"gguf_file": gguf} if gguf else {}))
    except (OSError, ValueError) as error:
        raise UserError(
            f"`teachers.{name}.model`: {source!r} is neither a folder here nor a model that can be had from the hub "
            f"({first_line(error)})"
        ) from error
    return config._commit_hash or revision or "unpinned"


def _convert(name: str, source: str, gguf: str, folder: Path) -> None:
    """Write a GGUF model as a plain folder with the same logits, bit for bit."""
    try:
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    except (OSError, ValueError, LookupError, struct.error) as error:
        reason = first_line(error)
        raise UserError(f"`teachers.{name}.gguf`: {gguf} cannot be read as a GGUF model: {reason}") from error
    # A model that was loaded from GGUF refuses save_pretrained; its plain twin does not.
    config = loaded.config.__class__.from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    partial = folder.with_name(f".{folder.name}.partial")
    remove(partial)
    plain.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    remove(folder)
    partial.rename(folder)


def check_length(config: Any, sequence_length: int, who: str, key: str) -> None:
    """Refuse sequences that are longer than a model's positions.

    Raises:
        UserError: naming the recipe key, the model and both lengths.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and sequence_length > positions:
        raise UserError(f"`{key}` is {sequence_length}, but {who} has only {positions} positions; lower it")


def run_dtype(name: str) -> torch.dtype:
    """The number format that a model which only runs forward runs in."""
    if name == "auto":
        return torch.bfloat16 if fast_bfloat16() else torch.float32
    return getattr(torch, name)
