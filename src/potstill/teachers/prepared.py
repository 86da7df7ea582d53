"""Prepared teachers, which later stages load from the run folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from potstill import distributed
from potstill.data.prompts.render import ends_of
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.device import device, run_dtype
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.models.pretrained import ModelSource
from potstill.models.quantization import quantization_config, quantization_of
from potstill.models.size import check_length
from potstill.recipe.precision import Precision
from potstill.recipe.teachers import ScoringTeacher, ServerTeacher, WritingTeacher
from potstill.servers.connect import Server, WritingServer, client_of
from potstill.servers.hidden_states_format import HeadFacts, TeacherFacts
from potstill.servers.model import ServedModel, check_unchanged
from potstill.servers.potstill import PotstillApi, head_of
from potstill.targets import Provenance
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.hosted import HostedTeacher, hosted_config
from potstill.teachers.live import LiveTeacher
from potstill.teachers.llama_cpp import LlamaCppModel
from potstill.teachers.served import ServedTeacher, served_config

POINTER = "teacher.json"
HEAD = "head.safetensors"
"""The head of a teacher that `potstill serve` gives."""


@dataclass(frozen=True)
class PreparedTeacher:
    """A teacher that the `teachers` or `pretrain` stage has prepared."""

    name: str
    source: str
    """The folder, or the name on the hub, that transformers loads."""
    commit: str | None
    """The commit of the repository on the hub."""
    fingerprint: str
    """Identifies the weights as they run: the hub's commit or a digest of the files, combined with the quantisation or
    the engine if these change the teacher's targets."""
    dtype: str
    """The number format of its unquantised weights, as torch names it."""
    gguf: str | None = None
    quantization: dict[str, Any] | None = None
    device_map: str | dict[str, int | str] | None = None
    llama_cpp: str | None = None
    """The GGUF file, if llama.cpp runs the teacher."""
    threads: int | None = None
    served: ServedModel | None = None
    """The model behind a server, if it runs there. `source` is a folder with its tokenizer."""
    hosted: TeacherFacts | None = None
    """What `potstill serve` says of the teacher, if it gives it. `source` holds its tokenizer and its head."""
    server: ServerTeacher | None = None
    """How the recipe asks that server."""

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str | None = None,
        precision: Precision = "fp32",
        server: ServerTeacher | None = None,
    ) -> "PreparedTeacher":
        """Read the pointer that :func:`prepare` wrote.

        Args:
            folder: the folder with the pointer.
            name: the teacher's name; default: the folder's.
            precision: the run's number format, which a teacher with `dtype: auto` has.
            server: the recipe's section, if the teacher is behind a server and will be asked.

        Raises:
            UserError: the pointer is not as it was written.
        """
        saved = read_json(folder / POINTER)
        try:
            if saved.get("served") is not None:
                saved |= {"served": ServedModel(**saved["served"]), "server": server}
            if saved.get("hosted") is not None:
                hosted = TeacherFacts(**saved["hosted"] | {"head": HeadFacts(**saved["hosted"]["head"])})
                saved |= {"hosted": hosted, "server": server}
            found = cls(name or folder.name, **saved | {"source": saved["source"] or str(folder)})
        except (AttributeError, KeyError, TypeError) as error:  # other keys than were written, or no object
            raise UserError(
                f"{folder / POINTER} is damaged; run the recipe again (`potstill run`), which prepares the teacher anew"
            ) from error
        if found.dtype == "auto":
            found = replace(found, dtype=str(run_dtype(precision)).removeprefix("torch."))
        return found

    @property
    def is_elsewhere(self) -> bool:
        """Whether a server runs the teacher, so that its weights are not here."""
        return self.served is not None or self.hosted is not None

    @property
    def _files(self) -> ModelSource:
        how = {"revision": self.commit} | ({"gguf_file": self.gguf} if self.gguf else {})
        return ModelSource(self.source, f"`teachers.{self.name}`", how)

    def tokenizer(self) -> Any:
        """The teacher's tokenizer."""
        return self._files.tokenizer()

    def config(self) -> Any:
        """The teacher's configuration; of a served model, what is known of it."""
        if self.hosted is not None:
            return hosted_config(self.hosted)
        return self._files.config() if self.served is None else served_config(self.served)

    def provenance(self, template: str = "none", tokenizer: Any = None) -> Provenance:
        """The provenance that a store of this teacher's targets must have.

        Args:
            template: the fingerprint of the teacher's prompt; "none" for plain text.
            tokenizer: the tokenizer that made the ids; default: the teacher's own.
        """
        made_by = tokenizer_fingerprint(self.tokenizer() if tokenizer is None else tokenizer)
        return Provenance(teacher=self.name, revision=self.fingerprint, tokenizer=made_by, template=template)

    def beside(self, vocabulary: int | None = None) -> TeacherBeside:
        """The teacher, ready to read the batches of a student.

        Args:
            vocabulary: its targets cover the ids from 0 to this number; default: all of its ids.

        Raises:
            UserError: as :meth:`model`, or its server cannot be reached or has another model now.
        """
        if not self.is_elsewhere:
            return LiveTeacher(self.model(), vocabulary)
        if self.hosted is not None:
            assert self.server is not None, "the recipe says how its server is asked"
            head = head_of((Path(self.source) / HEAD).read_bytes(), self.hosted, torch.device("cpu"))
            return HostedTeacher(PotstillApi(client_of(self.name, self.server)), self.hosted, head, vocabulary)
        assert isinstance(self.server, ScoringTeacher), "the recipe says how its server is asked"
        assert self.served is not None
        return ServedTeacher(Server.of(self.name, self.server), self.served, vocabulary)

    def writer(self) -> WritingServer:
        """The server of a teacher that only writes, which has the same model still.

        Raises:
            UserError: the server cannot be reached, or has another model now.
        """
        assert isinstance(self.server, WritingTeacher), "the recipe says how its server is asked"
        assert self.served is not None
        tokenizer = self.tokenizer()
        found = WritingServer.of(self.name, self.server, tokenizer, ends_of(tokenizer))
        check_unchanged(found, self.served)
        return found

    def model(self, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """Load the frozen teacher onto its device; with a `dtype`, load its unquantised weights in that format.

        Raises:
            UserError: unquantised weights are asked of a checkpoint that is quantised already, the teacher is behind a
                server, or it is not a whole causal language model (:class:`ModelSource`).
        """
        if self.is_elsewhere:
            raise UserError(
                f"`teachers.{self.name}` is behind a server, and this needs its weights here; name another "
                "model, or leave it out"
            )
        if dtype is not None:
            return self._plain(dtype)
        if self.llama_cpp is not None:
            return LlamaCppModel(Path(self.llama_cpp), self.config(), self.threads, self.name)
        quantised = self.quantization is not None or quantization_of(self.config()) is not None
        # A quantised model must not be moved, and a model that spans devices cannot be.
        where: Any = self.device_map or ({"": device()} if quantised else None)
        how = {"dtype": getattr(torch, self.dtype), "device_map": where}
        if self.quantization is not None:
            how["quantization_config"] = quantization_config(self.quantization, f"teachers.{self.name}.quantization")
        return self._files.model(device() if where is None else None, **how).eval().requires_grad_(False)

    def model_to_shard(self) -> PreTrainedModel:
        """Load the frozen teacher on the first rank, into the host's memory, from where all ranks get their parts.

        On the other ranks it has no weights: it lies on the meta device.

        Raises:
            UserError: the checkpoint is quantised, so that it cannot be split; or as :meth:`model`.
        """
        self.check_shardable()
        dtype = getattr(torch, self.dtype)
        found = self._files.model(None, dtype=dtype) if distributed.is_first() else self._files.without_weights(dtype)
        return found.eval().requires_grad_(False)

    def check_shardable(self) -> None:
        """Refuse a checkpoint that is quantised, which FSDP2 cannot split. The recipe has refused other such settings.

        Raises:
            UserError: it is quantised.
        """
        if quantization_of(self.config()) is not None:
            raise UserError(
                f"`teachers.{self.name}` holds quantised weights, which `distributed.strategy: fsdp2` cannot split; "
                "name the model before its quantisation, add `capture: {}`, or use `ddp`"
            )

    def _plain(self, dtype: torch.dtype) -> PreTrainedModel:
        if quantization_of(self.config()) is not None:
            raise UserError(
                f"`teachers.{self.name}` holds quantised weights, from which no student can be made; name the "
                "model before its quantisation"
            )
        files = self._files
        if self.llama_cpp is not None:
            gguf = Path(self.llama_cpp)
            files = ModelSource(str(gguf.parent), f"`teachers.{self.name}.gguf`", {"gguf_file": gguf.name})
        return files.model(device(), dtype=dtype).eval().requires_grad_(False)

    def parameters(self) -> int | None:
        """The number of the teacher's weights, counted without loading them; None if they are behind a server."""
        if self.is_elsewhere:
            return None
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config())
        return sum(weight.numel() for weight in model.parameters())

    def check_length(self, sequence_length: int, key: str) -> None:
        """Refuse sequences that are longer than the model's positions."""
        check_length(self.config(), sequence_length, f"teacher {self.name!r}", key)
