"""`strategies:` — the prompts of teacher and student for one answer."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, Field, model_validator

from potstill.errors import first_line
from potstill.limits import LimitError, limited
from potstill.recipe.section import Section, about_key

MOST_SECONDS, MOST_MEMORY = 5, 2**28
"""Of this process's computing time, and bytes: for one template and one row."""
MOST_CHARACTERS = 2**20
"""A million characters are more than any model reads at once."""
MOST_BITS = 2**12
"""Of a whole number. Python cannot be stopped while it multiplies larger and larger ones."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """People share recipes, and recipes contain templates. One of them must not stop a machine."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MOST_BITS:
                raise SecurityError(f"`{operator}` gives too large a number")
        return super().call_binop(context, operator, left, right)


_JINJA = _Sandbox(undefined=StrictUndefined)


@cache
def compiled(template: str) -> Template:
    """A template, ready to render. Rendering fails if a field of the template is missing."""
    # Jinja computes constants here already.
    with limited(MOST_SECONDS, MOST_MEMORY):
        return _JINJA.from_string(template)


def rendered(template: str, fields: Mapping[str, Any]) -> str:
    """A template with its fields filled in. It may raise any exception; LimitError if it takes or gives too much."""
    ready = compiled(template)
    with limited(MOST_SECONDS, MOST_MEMORY):
        text = ready.render(fields)
    if len(text) > MOST_CHARACTERS:
        raise LimitError(f"gives {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    return text


def fields_of(template: str) -> set[str]:
    """The fields that a template uses."""
    return meta.find_undeclared_variables(_JINJA.parse(template)) - set(_JINJA.globals)


def _is_template(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; write a template, or remove it")
    try:
        compiled(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"is not a valid Jinja template (line {error.lineno}: {error.message}); correct it") from None
    except Exception as error:  # constants are computed, and a template may be nested too deep
        raise ValueError(f"cannot be filled in ({first_line(error)}); correct the template") from error
    return text


TemplateText = Annotated[str, AfterValidator(_is_template)]
"""A Jinja template with the fields of a row: `question`, `reference` and the other fields of its source."""

ANSWERS = ("answer", "reference")
"""Fields of a row that the student's prompt must not show."""

QUESTION = "{{ question }}"


class Prompt(Section):
    """What one model is asked. Models with a chat template get it as chat messages, others as paragraphs of plain
    text."""

    system: TemplateText | None = None
    """The system message: a Jinja template with the row's fields. Default: none, but some chat templates add their
    own."""

    user: TemplateText | None = None
    """The user's message: a Jinja template with the row's fields. Default: the question itself."""

    examples: list[dict[str, str]] = Field(default_factory=list)
    """Answered questions that come first. Each has the fields that `user` uses, and an `answer`. Default: none."""

    @property
    def question(self) -> str:
        """The template of the user's message."""
        return QUESTION if self.user is None else self.user

    @model_validator(mode="after")
    def _has_a_template(self) -> "Prompt":
        if self.system is None and self.user is None:
            raise ValueError(f'has no template; give `system`, `user` or both, such as `user: "{QUESTION}"`')
        for index, example in enumerate(self.examples):
            if not example.get("answer", "").strip():
                raise about_key(f"examples.{index}.answer", "is missing; give the answer of the example")
        return self


class Strategy(Section):
    """Two prompts for one answer: the teacher reads the answer after its prompt, the student learns it after its
    own."""

    teacher: Prompt
    """What the teacher is asked."""

    student: Prompt = Prompt(user=QUESTION)
    """What the student is asked, in training and in evaluation. Default: the question itself."""

    @model_validator(mode="after")
    def _student_sees_no_answer(self) -> "Strategy":
        for name, template in (("system", self.student.system), ("user", self.student.question)):
            shown = sorted(fields_of(template or "") & set(ANSWERS))
            if shown:
                raise about_key(
                    f"student.{name}", f"uses `{shown[0]}`, which the student must learn to write; use other fields"
                )
        return self


SHIPPED = {
    "base": Strategy(teacher=Prompt(user=QUESTION)),
    "teacher": Strategy(
        teacher=Prompt(
            system="You are a teacher who guides a student. Solve the problem step by step, in words simple enough for "
            "the student to follow and to learn from."
        )
    ),
    "ground-truth": Strategy(
        teacher=Prompt(
            system="You are an expert whose solutions smaller models learn from. You are given a problem together with "
            "its correct solution. Answer the problem correctly, and in enough detail to be learned from.",
            user=f"{QUESTION}\n\nThe correct solution:\n{{{{ reference }}}}",
        )
    ),
    "confidence": Strategy(
        teacher=Prompt(system="Solve the problem step by step. At the end, double-check your result briefly.")
    ),
}
"""The shipped strategies. In substance they are those of arXiv:2412.17846, section 3."""
