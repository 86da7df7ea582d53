"""Teachers that transformers can load: found, converted where they are GGUF, pinned, and loaded again for later stages.

A teacher is *prepared* once into the run folder. A GGUF file becomes a plain Hugging Face folder, because reading one
takes a second per ten million parameters each time, and so does a checkpoint of llama2.c; any other teacher stays where
it is and is only pointed at. Of a GGUF file that llama.cpp runs, tokenizer and configuration are kept, and the file
stays where it is.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.device import device, fast_bfloat16
from potstill.errors import UserError, first_line
from potstill.files.atomic import digest, read_json, remove, sha256, write_json
from potstill.files.installed_packages import package_files
from potstill.models.quantization import check_checkpoint, quantization_config
from potstill.recipe.teachers import Llama2cTeacher, ModelTeacher, PackagedTeacher, Teacher
from potstill.targets import Provenance
from potstill.teachers.llama2c import read_model, read_tokenizer
from potstill.teachers.llama_cpp import LlamaCppModel, check_installed

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
    def load(cls, folder: Path, name: str | None = None) -> "Prepared":
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


def prepare(name: str, teacher: Teacher, folder: Path) -> Path:
    """Find a teacher, convert it if it is GGUF or llama2.c's, pin it, and write where it is into `folder`.

    Raises:
        UserError: it cannot be found or loaded, or it is no causal language model.
    """
    if isinstance(teacher, Llama2cTeacher):
        found = _prepare_llama2c(name, teacher, folder)
    else:
        source, gguf = _source(name, teacher)
        made = _prepare_llama_cpp if teacher.engine == "llama_cpp" else _prepare_transformers
        found = made(name, teacher, source, gguf, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _point(folder, dtype=teacher.dtype, **found)
    return folder


def prepare_here(folder: Path) -> None:
    """Make a teacher of a plain Hugging Face folder inside the run."""
    fingerprint = _weights_of(folder)
    assert fingerprint is not None, f"{folder} holds no weights"
    _point(folder, fingerprint=fingerprint)


def quantization_of(config: Any) -> Any:
    """How a checkpoint is quantised already, by its configuration; None where it is not."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None)


def _point(folder: Path, **found: Any) -> None:
    nothing = dict.fromkeys(("source", "commit", "gguf", "quantization", "device_map", "llama_cpp", "threads"))
    write_json(folder / POINTER, nothing | {"dtype": "auto"} | found)


def _prepare_transformers(name: str, teacher: Teacher, source: str, gguf: str | None, folder: Path) -> dict[str, Any]:
    quantization, commit = teacher.quantization, None
    kept: str | None = source
    if quantization is not None:
        quantization_config(quantization, f"teachers.{name}.quantization")
    local = Path(source).is_dir()
    if local and gguf is None:
        fingerprint = _weights_of(Path(source))
        if fingerprint is None:
            raise UserError(f"`teachers.{name}.model`: the folder {source} holds no weights ({', '.join(WEIGHTS)})")
        already = (read_json(Path(source) / "config.json") or {}).get("quantization_config")
    elif local:
        fingerprint, already = sha256(Path(source) / str(gguf)), None
    else:
        config = _hub_config(name, source, _revision(teacher), gguf)
        commit = config._commit_hash or _revision(teacher)
        fingerprint, already = commit or "unpinned", quantization_of(config) if gguf is None else None
    if already is not None and quantization is not None:
        raise UserError(f"`teachers.{name}.quantization`: {source} is quantised already; remove the key")
    if already is not None:
        check_checkpoint(already, f"teachers.{name}")
    # Transformers quantises no GGUF model while it reads it.
    if gguf is not None and (local or quantization is not None):
        _convert(name, source, gguf, commit, folder)
        kept = gguf = None
    return {"source": kept, "commit": commit, "gguf": gguf} | _as_run(fingerprint, teacher)


def _as_run(weights: str, teacher: Teacher) -> dict[str, Any]:
    """What transformers needs to run it, and the fingerprint of the weights as they are then."""
    quantization = teacher.quantization
    fingerprint = weights if quantization is None else digest({"weights": weights, "quantization": quantization})
    return {"fingerprint": fingerprint, "quantization": quantization, "device_map": teacher.device_map}


def _prepare_llama2c(name: str, teacher: Llama2cTeacher, folder: Path) -> dict[str, Any]:
    key = f"teachers.{name}"
    if teacher.quantization is not None:
        quantization_config(teacher.quantization, f"{key}.quantization")
    files = [Path(file).expanduser() for file in (teacher.llama2c, teacher.tokenizer)]
    model = read_model(files[0], f"{key}.llama2c")
    tokenizer = read_tokenizer(files[1], f"{key}.tokenizer", model.config.vocab_size)
    _save(model, tokenizer, folder)
    return _as_run(digest([sha256(file) for file in files]), teacher)


def _prepare_llama_cpp(name: str, teacher: Teacher, source: str, gguf: str | None, folder: Path) -> dict[str, Any]:
    assert gguf is not None, "the recipe sees to it"
    check_installed(name)
    commit = None
    if not Path(source).is_dir():
        commit = _hub_config(name, source, _revision(teacher), gguf)._commit_hash
        source = snapshot_download(source, revision=commit, allow_patterns=[_parts(gguf)])
    files = sorted(Path(source).glob(_parts(gguf)))
    with _reading_gguf(name, gguf):
        config, tokenizer = (kind.from_pretrained(source, gguf_file=gguf) for kind in (AutoConfig, AutoTokenizer))
    remove(folder)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Its kernels quantise activations too: another engine says other things with the same weights.
    fingerprint = digest({"weights": [sha256(file) for file in files], "engine": "llama_cpp"})
    file = str(Path(source).resolve() / gguf)
    return {"commit": commit, "fingerprint": fingerprint, "llama_cpp": file, "threads": teacher.threads}


def _parts(gguf: str) -> str:
    """A pattern of all files of a GGUF model, which may be in several parts (`-00001-of-00009.gguf`)."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", gguf)


def _weights_of(folder: Path) -> str | None:
    """A digest of a folder's weights; None where there are none."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    return digest({file.name: sha256(file) for file in files}) if files else None


def _source(name: str, teacher: PackagedTeacher | ModelTeacher) -> tuple[str, str | None]:
    if isinstance(teacher, PackagedTeacher):
        file = package_files(teacher.package, teacher.gguf, f"teachers.{name}", "gguf")[0]
        return str(file.parent), file.name
    folder = Path(teacher.model).expanduser()
    if folder.is_dir():
        if teacher.gguf and not (folder / teacher.gguf).is_file():
            raise UserError(f"`teachers.{name}.gguf`: there is no file {teacher.gguf!r} in {folder}")
        return str(folder.resolve()), teacher.gguf
    return teacher.model, teacher.gguf


def _revision(teacher: Teacher) -> str | None:
    return teacher.revision if isinstance(teacher, ModelTeacher) else None


def _hub_config(name: str, source: str, revision: str | None, gguf: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(source, revision=revision, **({"gguf_file": gguf} if gguf else {}))
    except (OSError, ValueError) as error:
        raise UserError(
            f"`teachers.{name}.model`: {source!r} is neither a folder here nor a model that can be had from the hub "
            f"({first_line(error)})"
        ) from error


@contextmanager
def _reading_gguf(name: str, gguf: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        reason = first_line(error)
        raise UserError(f"`teachers.{name}.gguf`: {gguf} cannot be read as a GGUF model: {reason}") from error


def _convert(name: str, source: str, gguf: str, commit: str | None, folder: Path) -> None:
    """Write a GGUF model as a plain folder with the same logits, bit for bit."""
    with _reading_gguf(name, gguf):
        given = {"gguf_file": gguf, "revision": commit}
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **given)
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
    # A model that was loaded from GGUF refuses save_pretrained; its plain twin does not.
    config = loaded.config.__class__.from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    _save(plain, tokenizer, folder)


def _save(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    remove(partial)
    model.save_pretrained(partial)
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
