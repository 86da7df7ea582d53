"""Prepare: find a teacher, convert it if needed, pin its revision, and record it in the run folder.

A teacher is *prepared* once. A GGUF file is converted to a plain Hugging Face folder, because reading GGUF takes one
second per ten million parameters each time. A checkpoint of llama2.c is converted too. Any other teacher stays where it
is, and the run folder holds only a pointer to it. For a GGUF file that llama.cpp runs, the run folder holds the
tokenizer and the configuration, and the file stays where it is.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer

from potstill.errors import UserError, first_line
from potstill.files.atomic import digest, read_json, remove, sha256, write_json
from potstill.files.installed_packages import package_files
from potstill.models.folder import save_model
from potstill.models.quantization import check_checkpoint, quantization_config, quantization_of
from potstill.recipe.teachers import Llama2cTeacher, ModelTeacher, PackagedTeacher, Teacher
from potstill.teachers.gguf import convert, parts_pattern, reading_gguf
from potstill.teachers.llama2c import read_model, read_tokenizer
from potstill.teachers.llama_cpp import check_installed
from potstill.teachers.prepared import POINTER

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def prepare(name: str, teacher: Teacher, folder: Path) -> Path:
    """Find a teacher, convert it if it is GGUF or of llama2.c, pin it, and write its pointer into `folder`.

    Raises:
        UserError: the teacher cannot be found or loaded, or is no causal language model.
    """
    if isinstance(teacher, Llama2cTeacher):
        found = _prepare_llama2c(name, teacher, folder)
    else:
        source, gguf = _locate(name, teacher)
        made = _prepare_llama_cpp if teacher.engine == "llama_cpp" else _prepare_transformers
        found = made(name, teacher, source, gguf, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pointer(folder, dtype=teacher.dtype, **found)
    return folder


def prepare_trained(folder: Path) -> None:
    """Prepare a teacher that the run itself trained: `folder`, inside the run, is a plain Hugging Face folder."""
    fingerprint = _weights_digest(folder)
    assert fingerprint is not None, f"{folder} holds no weights"
    _write_pointer(folder, fingerprint=fingerprint)


def _write_pointer(folder: Path, **found: Any) -> None:
    nothing = dict.fromkeys(("source", "commit", "gguf", "quantization", "device_map", "llama_cpp", "threads"))
    write_json(folder / POINTER, nothing | {"dtype": "auto"} | found)


def _prepare_transformers(name: str, teacher: Teacher, source: str, gguf: str | None, folder: Path) -> dict[str, Any]:
    quantization, commit = teacher.quantization, None
    kept: str | None = source
    if quantization is not None:
        quantization_config(quantization, f"teachers.{name}.quantization")
    local = Path(source).is_dir()
    if local and gguf is None:
        fingerprint = _weights_digest(Path(source))
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
    # transformers cannot quantise a GGUF model while it reads it.
    if gguf is not None and (local or quantization is not None):
        convert(name, source, gguf, commit, folder)
        kept = gguf = None
    return {"source": kept, "commit": commit, "gguf": gguf} | _run_settings(fingerprint, teacher)


def _run_settings(weights: str, teacher: Teacher) -> dict[str, Any]:
    """The settings with which transformers runs the teacher, and the fingerprint of its weights as they run."""
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
    save_model(model, tokenizer, folder)
    return _run_settings(digest([sha256(file) for file in files]), teacher)


def _prepare_llama_cpp(name: str, teacher: Teacher, source: str, gguf: str | None, folder: Path) -> dict[str, Any]:
    assert gguf is not None, "the recipe checks this"
    check_installed(name)
    commit = None
    if not Path(source).is_dir():
        commit = _hub_config(name, source, _revision(teacher), gguf)._commit_hash
        source = snapshot_download(source, revision=commit, allow_patterns=[parts_pattern(gguf)])
    files = sorted(Path(source).glob(parts_pattern(gguf)))
    with reading_gguf(name, gguf):
        config, tokenizer = (kind.from_pretrained(source, gguf_file=gguf) for kind in (AutoConfig, AutoTokenizer))
    remove(folder)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # llama.cpp's kernels quantise activations too, so another engine gives other targets with the same weights.
    fingerprint = digest({"weights": [sha256(file) for file in files], "engine": "llama_cpp"})
    file = str(Path(source).resolve() / gguf)
    return {"commit": commit, "fingerprint": fingerprint, "llama_cpp": file, "threads": teacher.threads}


def _weights_digest(folder: Path) -> str | None:
    """A digest of a folder's weights; None if it has no weights."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    return digest({file.name: sha256(file) for file in files}) if files else None


def _locate(name: str, teacher: PackagedTeacher | ModelTeacher) -> tuple[str, str | None]:
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
            f"`teachers.{name}.model`: {source!r} is neither a folder here nor a model that can be loaded from the hub "
            f"({first_line(error)})"
        ) from error
