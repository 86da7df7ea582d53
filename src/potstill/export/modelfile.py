"""Modelfile: what Ollama needs beside a GGUF file: the template in its own language, and every stop.

Ollama does not read the chat template of a GGUF file. The parts around each turn are found by rendering the template,
and the result is kept only if it gives the same text as the template does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

Messages = Sequence[Mapping[str, str]]
Render = Callable[[Messages, bool], str]
"""Renders messages, with the beginning of the assistant's next turn or without."""
S, U, A = "⟪system⟫", "⟪user⟫", "⟪assistant⟫"
SYSTEM, USER, ASSISTANT = (
    {"role": role, "content": text} for role, text in (("system", S), ("user", U), ("assistant", A))
)
CHATS: Sequence[Messages] = (
    [USER],
    [SYSTEM, USER],
    [USER, ASSISTANT, USER],
    [SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER],
)
"""What a template must give for a Modelfile that stands for it."""


@dataclass(frozen=True)
class Turns:
    """What a chat template writes before and after the text of each role."""

    around: Mapping[str, tuple[str, str]]
    to_answer: str
    """The beginning of the assistant's next turn."""
    default_system: str | None = None
    """The system's text where a conversation has none."""

    def render(self, messages: Messages) -> str:
        """A conversation up to the assistant's turn."""
        if self.default_system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default_system}, *messages]
        parts = [self.around[one["role"]][0] + one["content"] + self.around[one["role"]][1] for one in messages]
        return "".join(parts) + self.to_answer

    def in_go(self) -> str:
        """The same in Go's template language, which Ollama reads."""
        cases = "".join(
            f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for number, (role, (before, after)) in enumerate(self.around.items())
        )
        return f"{{{{- range .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{self.to_answer}"


def turns_of(render: Render) -> Turns | None:
    """The turns of a chat template. None if it does not write each turn by itself.

    Args:
        render: the template, without a token that begins a text.
    """
    try:
        return _turns(render)
    except (TemplateError, ValueError, IndexError, TypeError):
        return None


def _turns(render: Render) -> Turns | None:
    first, _, said = render([USER, ASSISTANT], False).partition(U)
    again, _, user_after = render([USER, ASSISTANT, USER], False).rpartition(U)
    to_answer = render([USER], True).removeprefix(render([USER], False))
    before_answer, _, answer_after = said.removeprefix(user_after).partition(A)
    user_before = again.rpartition(A)[2].removeprefix(answer_after)
    around = {"user": (user_before, user_after), "assistant": (before_answer, answer_after)}
    system, default = _system(render, user_before + U + user_after), None
    chats = [chat for chat in CHATS if system is not None or chat[0] is USER]
    if system is not None:
        around = {"system": system, **around}
        untold = first.removesuffix(user_before)
        default = untold.removeprefix(system[0]).removesuffix(system[1]) if untold else None
    found = Turns(around, to_answer, default)
    return found if all(found.render(chat) == render(chat, True) for chat in chats) else None


def _system(render: Render, question: str) -> tuple[str, str] | None:
    """What stands around the system's text. None where the template takes none, or puts it into the user's turn."""
    try:
        before, _, after = render([SYSTEM, USER], False).partition(S)
    except TemplateError:
        return None
    return (before, after.removesuffix(question)) if after.endswith(question) else None


def modelfile(file: str, turns: Turns | None, before_text: str, stops: Sequence[str]) -> str:
    """A Modelfile.

    Args:
        file: the name of the GGUF file beside it.
        turns: of the chat template. None: the model continues text.
        before_text: what stands before each text that is continued.
        stops: the texts at which an answer ends.
    """
    template = before_text + "{{ .Prompt }}" if turns is None else turns.in_go()
    lines = [f"FROM ./{file}", f'TEMPLATE """{template}"""']
    if turns is not None and turns.default_system is not None:
        lines.append(f'SYSTEM """{turns.default_system}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"
