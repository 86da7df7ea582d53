"""Prepare: find a teacher, convert it if needed, pin its revision, and record it in the run folder.

A teacher is *prepared* once. A GGUF file is converted to a plain Hugging Face folder, because reading GGUF takes one
second per ten million parameters each time. A checkpoint of llama2.c is converted too. Any other teacher stays where it
is, and the run folder holds only a pointer to it. For a GGUF file that llama.cpp runs, the run folder holds the
tokenizer and the configuration, and the file stays where it is.
"""

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from potstill.data.prompts.render import ends_of
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.files.atomic import digest, remove, sha256, write_bytes, write_json, write_text
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_files
from potstill.files.named_files import named_folder, named_path
from potstill.models.folder import save_model
from potstill.models.pretrained import ModelSource, check_tokens
from potstill.models.quantization import check_checkpoint, quantization_config, quantization_of
from potstill.recipe.teachers import (
    Llama2cTeacher,
    LoadedTeacher,
    ModelTeacher,
    NamedTeacher,
    PackagedTeacher,
    PotstillTeacher,
    ScoringTeacher,
    Teacher,
    WritingTeacher,
)
from potstill.servers.connect import Server, WritingServer, client_of
from potstill.servers.model import meet
from potstill.servers.potstill import PotstillApi
from potstill.teachers.gguf import convert, one_reading, parts_pattern
from potstill.teachers.llama2c import read_model, read_tokenizer
from potstill.teachers.llama_cpp import check_installed
from potstill.teachers.prepared import HEAD, POINTER, PreparedTeacher

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def prepare(name: str, teacher: Teacher, folder: Path) -> Path:
    """Find a teacher, convert it if it is GGUF or of llama2.c, pin it, and write its pointer into `folder`.

    Raises:
        UserError: the teacher cannot be found or loaded, or is no causal language model.
    """
    if isinstance(teacher, PotstillTeacher):
        found = _prepare_hosted(name, teacher, folder)
    elif isinstance(teacher, ScoringTeacher | WritingTeacher):
        found = _prepare_served(name, teacher, folder)
    elif isinstance(teacher, Llama2cTeacher | NamedTeacher):
        found = _prepare_llama2c(name, teacher, folder)
    else:
        source, gguf = _locate(name, teacher)
        made = _prepare_llama_cpp if teacher.engine == "llama_cpp" else _prepare_transformers
        with one_reading():
            found = made(name, teacher, source, gguf, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pointer(folder, **({"dtype": teacher.dtype} if isinstance(teacher, LoadedTeacher) else {}), **found)
    return folder


def prepare_trained(folder: Path) -> None:
    """Prepare a teacher that the run itself trained: `folder`, inside the run, is a plain Hugging Face folder."""
    _write_pointer(folder, fingerprint=_weights_digest(folder))


def _write_pointer(folder: Path, **found: Any) -> None:
    nothing = dict.fromkeys(("source", "commit", "gguf", "quantization", "device_map", "llama_cpp", "threads"))
    write_json(folder / POINTER, nothing | {"dtype": "auto"} | found)


def _prepare_transformers(
    name: str, teacher: PackagedTeacher | ModelTeacher, source: str, gguf: str | None, folder: Path
) -> dict[str, Any]:
    quantization, commit = teacher.quantization, None
    if quantization is not None:
        quantization_config(quantization, f"teachers.{name}.quantization")
    files = _files(name, teacher, source, gguf)
    config = files.config()
    already = quantization_of(config) if gguf is None else None
    if already is not None and quantization is not None:
        raise UserError(f"`teachers.{name}.quantization`: {source} is quantised already; remove the key")
    if already is not None:
        check_checkpoint(already, f"teachers.{name}")
    if not files.folder:
        commit = files.commit()
        files = replace(files, how={**files.how, "revision": commit})
    # transformers cannot quantise a GGUF model while it reads it.
    converts = gguf is not None and (files.folder or quantization is not None)
    if converts:
        convert(files, folder)
    else:
        files.check()
    kept = {"source": None, "gguf": None} if converts else {"source": source, "gguf": gguf}
    if files.folder:
        fingerprint = _weights_digest(Path(source)) if gguf is None else sha256(Path(source) / gguf)
    else:
        assert commit is not None, "a model that is no folder is on the hub"
        fingerprint = commit
    return kept | {"commit": commit} | _run_settings(fingerprint, teacher)


def _run_settings(weights: str, teacher: LoadedTeacher) -> dict[str, Any]:
    """The settings with which transformers runs the teacher, and the fingerprint of its weights as they run."""
    quantization = teacher.quantization
    fingerprint = weights if quantization is None else digest({"weights": weights, "quantization": quantization})
    return {"fingerprint": fingerprint, "quantization": quantization, "device_map": teacher.device_map}


def _prepare_served(name: str, teacher: ScoringTeacher | WritingTeacher, folder: Path) -> dict[str, Any]:
    place = named_folder(teacher.tokenizer or teacher.model)
    source = teacher.tokenizer or teacher.model if place is None else str(place.resolve())
    tokenizer = ModelSource(source, f"`teachers.{name}.tokenizer`").tokenizer()
    if isinstance(teacher, ScoringTeacher):
        model = meet(Server.of(name, teacher), tokenizer)
    else:
        model = meet(WritingServer.of(name, teacher, tokenizer, ends_of(tokenizer)), tokenizer)
    with suppress(UserError, OSError):
        # What was written down of the same model stays, so that its targets stay its own.
        earlier = PreparedTeacher.load(folder, name).served
        model = earlier if earlier is not None and earlier.is_like(model) else model
    tokenizer.save_pretrained(folder)
    return {"fingerprint": model.fingerprint, "served": asdict(model)}


def _prepare_hosted(name: str, teacher: PotstillTeacher, folder: Path) -> dict[str, Any]:
    api = PotstillApi(client_of(name, teacher))
    facts = api.facts().teacher
    head, files = api.head(facts), api.tokenizer()
    remove(folder)
    folder.mkdir(parents=True)
    for file, text in files.items():
        write_text(folder / file, text)
    found = tokenizer_fingerprint(ModelSource(str(folder), f"`teachers.{name}.server`").tokenizer())
    if found != facts.tokenizer:
        raise UserError(
            f"`teachers.{name}.server`: {teacher.server} gave a tokenizer that is read otherwise here; use the "
            "server's versions of transformers and tokenizers"
        )
    write_bytes(folder / HEAD, head)
    # The weights are the same in each number format, and the hidden states are not.
    fingerprint = digest({"weights": facts.fingerprint, "dtype": facts.dtype})
    return {"fingerprint": fingerprint, "hosted": asdict(facts)}


def _prepare_llama2c(name: str, teacher: Llama2cTeacher | NamedTeacher, folder: Path) -> dict[str, Any]:
    key = f"teachers.{name}"
    if teacher.quantization is not None:
        quantization_config(teacher.quantization, f"{key}.quantization")
    if isinstance(teacher, NamedTeacher):
        keys = [f"{key}.data"] * 2
        files = [named_files(teacher.data, split, keys[0])[0] for split in ("model", "tokenizer")]
    else:
        keys = [f"{key}.llama2c", f"{key}.tokenizer"]
        files = [named_path(file) for file in (teacher.llama2c, teacher.tokenizer)]
    model = read_model(files[0], keys[0])
    tokenizer = read_tokenizer(files[1], keys[1], model.config.vocab_size)
    save_model(model, tokenizer, folder)
    return _run_settings(digest([sha256(file) for file in files]), teacher)


def _prepare_llama_cpp(
    name: str, teacher: PackagedTeacher | ModelTeacher, source: str, gguf: str | None, folder: Path
) -> dict[str, Any]:
    assert gguf is not None, "the recipe checks this"
    check_installed(name)
    commit = None
    if not Path(source).is_dir():
        commit = _files(name, teacher, source, gguf).commit()
        source = snapshot_download(source, revision=commit, allow_patterns=[parts_pattern(gguf)])
    files = sorted(Path(source).glob(parts_pattern(gguf)))
    found = ModelSource(source, f"`teachers.{name}.gguf`", {"gguf_file": gguf})
    config, tokenizer = found.config(), found.tokenizer()
    check_tokens(tokenizer, config.vocab_size, found.what)
    remove(folder)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # llama.cpp's kernels quantise activations too, so another engine gives other targets with the same weights.
    fingerprint = digest({"weights": [sha256(file) for file in files], "engine": "llama_cpp"})
    file = str(Path(source).resolve() / gguf)
    return {"commit": commit, "fingerprint": fingerprint, "llama_cpp": file, "threads": teacher.threads}


def _weights_digest(folder: Path) -> str:
    """A digest of a folder's weights."""
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    assert files, f"{folder} holds no weights"
    return digest({file.name: sha256(file) for file in files})


def _locate(name: str, teacher: PackagedTeacher | ModelTeacher) -> tuple[str, str | None]:
    if isinstance(teacher, PackagedTeacher):
        file = package_files(teacher.package, teacher.gguf, f"teachers.{name}", "gguf")[0]
        return str(file.parent), file.name
    folder = named_folder(teacher.model)
    if folder is not None:
        if teacher.gguf and not (folder / teacher.gguf).is_file():
            raise UserError(f"`teachers.{name}.gguf`: there is no file {teacher.gguf!r} in {folder}")
        return str(folder.resolve()), teacher.gguf
    return teacher.model, teacher.gguf


def _revision(teacher: LoadedTeacher) -> str | None:
    return teacher.revision if isinstance(teacher, ModelTeacher) else None


def _files(name: str, teacher: LoadedTeacher, source: str, gguf: str | None) -> ModelSource:
    how = {"revision": _revision(teacher)} | ({"gguf_file": gguf} if gguf else {})
    return ModelSource(source, f"`teachers.{name}.{'gguf' if gguf else 'model'}`", how)
