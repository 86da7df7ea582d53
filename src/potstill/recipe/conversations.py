"""`corpus:` with `conversations` — chats of any number of turns, of which the assistant's turns are learned."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, model_validator

from potstill.recipe.corpus import HubDataset, NamedFiles, PackageFiles, PathFiles
from potstill.recipe.section import Length, Section, about_key, discriminated_by
from potstill.recipe.strategies import TemplateText, fields_of

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion"]

KEYS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages", "role", "content", "tools", "system"),
    "sharegpt": ("conversations", "from", "value", "tools", "system"),
    "alpaca": ("instruction", "input", "output", "system", "history"),
    "prompt_completion": ("prompt", "completion", "tools", "system"),
}
"""The columns of each format, and the keys of its messages, that `keys` may give other names."""

PROMPT_FIELDS = {"system": ("system",), "user": ("question", "reference", "system")}
"""The fields of the templates of what teachers read."""

ROLES = ("system", "user", "assistant", "tool")

PIN = "2024-07-26"

TAKEN = (
    *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors"),
    *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
)
"""Arguments of ``apply_chat_template`` that are no variables of a template."""


def _is_date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date; give one such as {PIN!r}") from None
    return text


class ConversationBase(Section):
    format: Format | None = None
    """How a row holds a conversation. Default: recognised by the columns of each row.

    - `messages`: a column `messages` of messages with `role` and `content`, and `tools`.
    - `sharegpt`: a column `conversations` of messages with `from` and `value`, and `tools` and `system`.
    - `alpaca`: the columns `instruction`, `input`, `output`, `system` and `history`.
    - `prompt_completion`: the columns `prompt` and `completion`, texts or lists of messages."""

    keys: dict[str, str] = Field(default_factory=dict)
    """Other names of columns and of a message's keys, such as `{conversations: dialog, from: speaker, value: text}`.
    Needs `format`. Default: the names above."""

    roles: dict[str, Literal["system", "user", "assistant", "tool"]] = Field(default_factory=dict)
    """Other names of roles, such as `{caller: user, agent: assistant}`. `human`, `gpt`, `model`, `bot`, `function`,
    `ipython`, `developer`, `function_call` and `observation` are known."""

    @model_validator(mode="after")
    def _keys_belong_to_the_format(self) -> "ConversationBase":
        if self.keys and self.format is None:
            raise about_key("format", f"is missing, and `keys` needs it; give one of {', '.join(KEYS)}")
        for key in self.keys:
            assert self.format is not None
            if key not in KEYS[self.format]:
                names = ", ".join(KEYS[self.format])
                raise about_key("keys", f"{key!r} is no key of the format `{self.format}`; its keys are {names}")
        return self


class PackageConversations(ConversationBase, PackageFiles):
    """Conversations in files inside an installed Python package. The package itself is never imported."""


class PathConversations(ConversationBase, PathFiles):
    """Conversations in files on this machine: .jsonl, .json, .csv or .parquet, one conversation a row."""


class NamedConversations(ConversationBase, NamedFiles):
    """Conversations of public data that has a name."""


class HubConversations(ConversationBase, HubDataset):
    """Conversations of a data set, such as `HuggingFaceTB/smoltalk`."""

    stream: bool = False
    """Read the data set while it is downloaded, no further than `corpus.train` needs. Rows come in one order, drawn
    once through a buffer. Default: false."""


ConversationSource = Annotated[
    Annotated[PackageConversations, Tag("<package>")]
    | Annotated[PathConversations, Tag("<path>")]
    | Annotated[NamedConversations, Tag("<data>")]
    | Annotated[HubConversations, Tag("<dataset>")],
    discriminated_by("package", "path", "data", "dataset"),
]


class ChatSettings(Section):
    """How a conversation becomes samples: what is learned, how it is rendered, and what is too long."""

    learn: Literal["all", "last"] = "all"
    """Which of the assistant's turns are learned: `all` (default), or only the `last`. A turn whose own weight is 0 in
    the data is never learned."""

    reasoning: bool = True
    """Whether the reasoning of a learned turn is learned (`<think>` parts). It is read in any case. Default: true."""

    tool_calls: bool = True
    """Whether the tool calls of a learned turn are learned, with the token that ends them. They are read in any case.
    Default: true."""

    template: str | None = None
    """The chat template: `chatml`, `llama-3`, `gemma`, `qwen`, `plain`, or a file with a Jinja template. Default: the
    tokenizer's own."""

    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Values for the template's own variables, such as `{enable_thinking: false}`. Default: none."""

    date: Annotated[str, AfterValidator(_is_date)] = PIN
    """The date that a template prints where it asks for today's, so that every run renders the same text. Default:
    2024-07-26."""

    too_long: Literal["drop", "cut_left", "cut_right", "split_turns"] = "drop"
    """What happens to a conversation of more than `sequence_length` tokens. `drop` (default): it is left out.
    `cut_left`: it loses its first tokens, but keeps the system prompt if that is short. `cut_right`: it loses its last
    tokens. `split_turns`: it becomes several samples, each of which begins with the system prompt and a user's turn. A
    sample without a learned token is always left out, and the audit counts what is lost."""

    on_bad_row: Literal["refuse", "drop"] = "refuse"
    """What happens to a row that is no proper conversation. `refuse` (default): the run stops with its place. `drop`:
    it is left out, and the audit counts the reasons."""

    sequence_length: Length
    """The greatest number of tokens of a sample."""

    @model_validator(mode="after")
    def _variables_are_free(self) -> "ChatSettings":
        if both := sorted({*TAKEN} & self.template_kwargs.keys()):
            raise about_key("template_kwargs", f"`{both[0]}` is set for each conversation; remove it")
        return self


class TeacherReading(Section):
    """How the teachers read a conversation, where they do not read what the student reads."""

    template: str | None = None
    """Their chat template, as `corpus.template`. Default: the student's."""

    template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Values for that template's own variables, beside those of the student's. Default: none."""

    system: TemplateText | None = None
    """The system prompt that they read in place of the conversation's own: a Jinja template, in which `system` is the
    conversation's own, or empty. Default: the conversation's."""

    user: TemplateText | None = None
    """What they read in place of each turn of the user: a Jinja template of `question`, the turn; `reference`, the
    assistant's answer to it; and `system`. Default: the turn."""

    sequence_length: Length | None = None
    """The greatest number of tokens that they read. Default: the student's."""

    @property
    def has_prompt(self) -> bool:
        """Whether they read other words than the student, and not only another template."""
        return self.system is not None or self.user is not None

    @property
    def shows_answers(self) -> bool:
        """Whether they read an answer before they read it as the assistant's."""
        return "reference" in fields_of(self.user or "")

    def without_answers(self) -> "TeacherReading":
        """The same where no answer is known: the turns of the user as they are, if their template shows it."""
        return self.model_copy(update={"user": None}) if self.shows_answers else self

    @model_validator(mode="after")
    def _fields_are_known(self) -> "TeacherReading":
        for key, known in PROMPT_FIELDS.items():
            unknown = sorted(fields_of(getattr(self, key) or "") - set(known))
            if unknown:
                raise about_key(key, f"uses the field `{unknown[0]}`, and the fields are {', '.join(known)}")
        return self


class HeldOutConversations(Section):
    """Separate conversations for evaluation, such as a test split."""

    conversations: list[ConversationSource] = Field(min_length=1)
    """The sources of the conversations. A conversation that is also a training one is removed from the training
    ones."""

    count: int | None = Field(None, gt=1)
    """The greatest number of conversations, in the order of their hashes. Default: all."""


class Conversations(ChatSettings):
    """Conversations, their split, and how they become samples."""

    conversations: list[ConversationSource] = Field(min_length=1)
    """The sources of the conversations. A conversation that occurs twice is kept once."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | HeldOutConversations = 0.1
    """The share of the conversations that is kept for evaluation, or separate conversations for it. Conversations are
    chosen by a hash of their messages, so a conversation stays on its side when the corpus grows. Default: 0.1."""

    validation: int | None = Field(None, gt=0)
    """The number of training conversations that are set aside for choices only: `keep: best`, `search` and `select`.
    Default: none."""

    train: int | None = Field(None, gt=0)
    """The greatest number of training conversations, in the order of their hashes or of their stream. Default: all;
    streams need a number."""

    layout: Literal["packed", "padded"] = "padded"
    """`padded` (default): each sample is one conversation. `packed`: several whole conversations fill a sample, and no
    token sees another conversation."""

    teacher: TeacherReading | None = None
    """What the teachers read, such as another template or a system prompt that the student does not get. Both learn and
    teach the same tokens of the assistant. Default: what the student reads."""

    @property
    def streams(self) -> bool:
        """Whether the conversations are read only as far as they are needed."""
        return any(_streams(source) for source in self.conversations)

    @property
    def keeps_apart(self) -> tuple[str, str] | None:
        """The setting by which no token sees another conversation of its sample, and the one without such samples."""
        return ("layout: packed", "layout: padded") if self.layout == "packed" else None

    @model_validator(mode="after")
    def _teacher_reads_rows(self) -> "Conversations":
        if self.teacher is None:
            return self
        if self.layout == "packed":
            raise about_key("teacher", "needs `layout: padded`; remove `layout`, or let the teachers read the same")
        if self.too_long in ("cut_left", "split_turns"):
            raise about_key("teacher", f"needs `too_long: drop` or `cut_right`, not `{self.too_long}`")
        return self

    @model_validator(mode="after")
    def _streams_have_an_end(self) -> "Conversations":
        if isinstance(self.held_out, HeldOutConversations) and any(map(_streams, self.held_out.conversations)):
            raise about_key("held_out", "may not have `stream: true`; remove `stream` from its conversations")
        if self.streams and not all(map(_streams, self.conversations)):
            raise about_key("conversations", "must all have `stream: true`, or none of them; a stream has no end")
        if self.streams and self.train is None:
            raise about_key("train", "is missing, and a stream has no end; give the number of conversations to read")
        return self


def _streams(source: ConversationSource) -> bool:
    return isinstance(source, HubConversations) and source.stream
