"""The chat: a person talks to models of a run, side by side. Nothing is written into the run."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from transformers.utils.logging import disable_progress_bar

from potstill.cli.review import VISIBLE
from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.training_rows import teacher_template
from potstill.errors import UserError, is_out_of_memory
from potstill.generation.decoding import Decoding
from potstill.generation.dialogue import Asking, Dialogue, by_chat_template, by_question, by_text
from potstill.generation.generate import NamedModel
from potstill.pipeline import artifacts
from potstill.pipeline.cleaning import check_there
from potstill.pipeline.graph import needed_by
from potstill.pipeline.precision import with_precision
from potstill.pipeline.run_folder import Run
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate, own_candidates
from potstill.recipe.chat import Chat
from potstill.recipe.conversations import ChatSettings, Conversations
from potstill.recipe.load import saved_recipe, section_of
from potstill.recipe.section import MOST_AT_ONCE
from potstill.recipe.step import Step
from potstill.training.memory import bytes_of, memory_of_device

if TYPE_CHECKING:
    from rich.console import Console

ALL = "all"
SIDE_BY_SIDE = ("teacher", "student", "control")
"""The roles that `all` stands for, in this order."""
COMMANDS = "/model NAME, /reset, /quit"
OF_ITS_DATA = ("corpus", "generate", "strategies")
"""Stages that models are trained with, and that nobody needs to talk to them."""
NARROWEST = 30
"""Of a column, in characters. In a narrower terminal, answers stand one below the other."""


def chat(folder: Path, model: str, prompt: str | None, overrides: Sequence[str]) -> None:
    """Talk until the person stops; with a prompt, answer it and stop.

    Args:
        folder: the run.
        model: a name, as :func:`chosen` takes it.
        prompt: what the models are asked.
        overrides: `key=value` of :class:`Chat`.

    Raises:
        UserError: the folder is no run folder, there is no such model or it is not trained yet, a setting is wrong, or
            the prompt cannot be answered.
    """
    # Models are loaded between answers, where their bars would be in the way.
    disable_progress_bar()
    settings = section_of(Chat, overrides, "--set")
    run = Run(folder)
    recipe = with_precision(saved_recipe(folder), run)
    models = chosen(recipe, model)
    check_finished(recipe, run, models)
    session = ChatSession(Work(recipe, run, Step("chat")), settings, models)
    if prompt is None:
        session.talk()
    elif prompt.strip():
        session.answer(prompt)
    else:
        raise UserError("`--prompt` is blank; write what the models are asked")


def chosen(recipe: Recipe, name: str) -> list[Candidate]:
    """The models that a name stands for; of those that are trained with several seeds, the first.

    Args:
        recipe: the run's recipe.
        name: a role (its first model), a model's own name such as `student base`, or `all`.

    Raises:
        UserError: there is no such model.
    """
    found: dict[str, Candidate] = {}
    for one in own_candidates(recipe):
        found.setdefault(one.label, one)
        found.setdefault(one.role, one)
    if name == ALL:
        return [found[role] for role in SIDE_BY_SIDE if role in found]
    if name not in found:
        why = "`control: null` leaves the control out" if name == "control" else f"there is no model {name!r}"
        raise UserError(f"{why}; the models of this run are {', '.join(found)} and `all`")
    return [found[name]]


def check_finished(recipe: Recipe, run: Run, models: Sequence[Candidate]) -> None:
    """Refuse models that the run has not made yet, or whose files are damaged.

    Raises:
        UserError: names the model and the stage that is missing, or whose files were removed.
    """
    for one in models:
        needed = needed_by(recipe, Step("answers", candidate=one))
        left = [step for step in needed if step.stage not in OF_ITS_DATA and run.manifest(step) is None]
        if left:
            alone = ", or name another model with `--model`" if len(models) > 1 else ""
            raise UserError(
                f"{run.folder} has no {one.label} yet, because `{left[0]}` is not done; run its recipe again{alone}"
            )
        if one.role == "teacher":
            check_there(run, Step("teachers"))


@dataclass
class ChatSession:
    """One chat with models of a run.

    Args:
        work: the run; its step is not used.
        settings: how models answer.
        models: the models that answer.
    """

    work: Work
    settings: Chat
    models: list[Candidate]
    _loaded: dict[Candidate, NamedModel] = field(default_factory=dict)
    _dialogues: dict[Candidate, Dialogue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._tokenizer = artifacts.tokenizer(self.work)
        self._asking = self._way_of_asking()
        given = self.settings.model_dump(exclude={"system"})
        self._decoding = Decoding(batch_size=1, **given)
        if self.settings.system is not None and not self._asking.remembers:
            raise UserError(f"`system` has no effect, because {self._asking.about}; remove it")
        if self._asking.about is not None:
            print(self._asking.about, file=sys.stderr, flush=True)

    def _way_of_asking(self) -> Asking:
        recipe = self.work.recipe
        if recipe.asks:
            name = recipe.answers.strategy
            return by_question(self._tokenizer, recipe.all_strategies[name].student, f"strategies.{name}.student")
        if isinstance(recipe.corpus, Conversations):
            return by_chat_template(chat_template(self._tokenizer, recipe.corpus))
        if self._tokenizer.chat_template is None:
            return by_text(self._tokenizer)
        return by_chat_template(chat_template(self._tokenizer, ChatSettings(sequence_length=MOST_AT_ONCE)))

    def talk(self) -> None:
        """Ask the person, and let the models answer, until the person stops."""
        print(f"{self._names()}; {COMMANDS}", file=sys.stderr, flush=True)
        while (said := _read()) is not None and said != "/quit":
            try:
                if said.startswith("/"):
                    self._command(said)
                elif said:
                    self.answer(said)
            except UserError as error:
                print(f"potstill: {error}", file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                print("\nstopped; this turn is forgotten", file=sys.stderr, flush=True)

    def _command(self, said: str) -> None:
        word, _, rest = said.partition(" ")
        if word == "/reset" and not rest:
            for dialogue in self._dialogues.values():
                dialogue.reset()
            print("a new conversation", file=sys.stderr, flush=True)
        elif word == "/model" and rest.strip():
            models = chosen(self.work.recipe, rest.strip())
            check_finished(self.work.recipe, self.work.run, models)
            self.models = models
            print(self._names(), file=sys.stderr, flush=True)
        else:
            raise UserError(f"there is no command {said!r}; the commands are {COMMANDS}")

    def _names(self) -> str:
        return " and ".join(one.label for one in self.models)

    def answer(self, said: str) -> None:
        """Let each model answer. Each has a conversation of its own: what it was asked, and its own answers.

        Raises:
            UserError: a model cannot be asked this.
        """
        # Bytes that are not UTF-8 come from the terminal as characters that no tokenizer takes.
        said = said.encode(errors="surrogateescape").decode(errors="replace")
        cut = []
        with self._view() as view:
            for one in self.models:
                asked = self._model(one)
                view.begin(one.label)
                answer = self._dialogue(one).ask(said, asked, self._decoding, view.show)
                view.end()
                cut += [f"{one.label} was cut after {answer.tokens:,} tokens"] if answer.hit_limit else []
        if cut:
            print("; ".join(cut), file=sys.stderr, flush=True)

    def _view(self) -> "_Below | _Columns":
        names = [one.label for one in self.models]
        if len(names) > 1 and self.console.is_terminal and self.console.width >= NARROWEST * len(names):
            return _Columns(self.console, names)
        return _Below(titled=len(names) > 1)

    def _dialogue(self, candidate: Candidate) -> Dialogue:
        if candidate not in self._dialogues:
            asking, system, corpus = self._asking, self.settings.system, self.work.recipe.corpus
            if candidate.role == "teacher" and isinstance(corpus, Conversations) and corpus.teacher is not None:
                # It reads what it reads in the training, but for answers that are still to be written.
                reading = corpus.teacher.without_answers()
                reading = reading if system is None else reading.model_copy(update={"system": None})
                asking = by_chat_template(teacher_template(self._tokenizer, corpus), reading)
            self._dialogues[candidate] = Dialogue(asking, system)
        return self._dialogues[candidate]

    def _model(self, candidate: Candidate) -> NamedModel:
        """A model, loaded when it is first asked. Models stay loaded where memory has room for them."""
        if candidate not in self._loaded:
            try:
                model = artifacts.own_model(self.work, candidate)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not self._loaded:
                    raise
                self._loaded.clear()
                model = artifacts.own_model(self.work, candidate)
            # The next model may be as large as all that are loaded.
            if sum(bytes_of(one.model) for one in self._loaded.values()) + bytes_of(model) > memory_of_device() / 2:
                self._loaded.clear()
            self._loaded[candidate] = NamedModel(model, self._tokenizer, candidate.label)
        return self._loaded[candidate]


class _Below:
    """Shows answers one below the other, under the names of their models if they are several."""

    def __init__(self, titled: bool) -> None:
        self._titled, self._first = titled, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, name: str) -> None:
        if self._titled:
            print(f"{name}:" if self._first else f"\n{name}:", flush=True)
        self._first = False

    def show(self, text: str) -> None:
        print(text.translate(VISIBLE), end="", flush=True)

    def end(self) -> None:
        print(flush=True)


class _Columns:
    """Shows answers side by side."""

    def __init__(self, console: "Console", names: Sequence[str]) -> None:
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

        self._texts = {name: Text(overflow="fold") for name in names}
        columns = Table(*names, expand=True, show_edge=False)
        for column in columns.columns:
            column.ratio = 1
        columns.add_row(*self._texts.values())
        # While answers are longer than the screen, their end is not shown. At last they are printed whole.
        self._live = Live(columns, console=console, vertical_overflow="ellipsis")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def begin(self, name: str) -> None:
        self._text = self._texts[name]

    def show(self, text: str) -> None:
        self._text.append(text.translate(VISIBLE))

    def end(self) -> None:
        self._live.refresh()


def _read() -> str | None:
    """A line of the person's; None at the end of the input, or if the person stops."""
    with suppress(ImportError):
        import readline  # noqa: F401 (it lets the person edit the line)
    try:
        return input("you: " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
