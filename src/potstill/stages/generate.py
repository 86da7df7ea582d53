"""generate: let a teacher write the answers that students learn.

Makes `generate/answers.jsonl`, the kept answers or conversations with their provenance, and `responses.jsonl`, all
responses. For conversations also `train/`, the samples of a training, and `audit.html`, what is learned of
them. A stopped stage goes on to the same answers (``generation.generate.responses``).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from potstill.console import progress, say
from potstill.data.conversations.align import as_teachers_read
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import teacher_template
from potstill.data.prompts.render import ends_of, prompt_ids, prompt_messages, template_fingerprint
from potstill.errors import UserError
from potstill.files.atomic import write_text
from potstill.files.jsonl_log import JsonlLog
from potstill.generation.decoding import Decoding, Key, Request
from potstill.generation.filter_answers import kept_answers
from potstill.generation.generate import NamedModel, Response, responses
from potstill.generation.server_writer import ServerModel, WritingModel
from potstill.generation.teacher_turns import Draft, TurnWriter
from potstill.generation.vllm_writer import check_installed
from potstill.metrics.continuations.similarity import check_rouge
from potstill.models.size import positions_of
from potstill.pipeline import artifacts
from potstill.pipeline.conversation_files import AUDIT, audit_figures, save_audit, save_samples
from potstill.pipeline.row_teachers import TaughtCounts, row_teachers
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.chat_strategies import key_under, reading_under
from potstill.recipe.conversations import Conversations
from potstill.recipe.generate import Generate
from potstill.recipe.served import only_writes
from potstill.servers.traffic import kept_traffic
from potstill.teachers.prepared import PreparedTeacher
from potstill.teachers.written import WRITTEN, WrittenLog

LIMIT = "generate.max_new_tokens"
TRAFFIC = "traffic.json"


def check(recipe: Recipe) -> None:
    """Refuse answers that need a library that is missing, before any step runs.

    Raises:
        UserError: it is not installed.
    """
    if recipe.generate is None:
        return
    check_installed(recipe.generate.engine, "generate.engine")
    if recipe.generate.keep == "nearest":
        check_rouge("generate.keep: nearest")


def run(work: Work) -> Made:
    """Let the teacher answer every training question or write turns of every training conversation, and keep the
    answers that the recipe allows."""
    settings, corpus = work.recipe.generate, work.recipe.corpus
    assert settings is not None
    if isinstance(corpus, Conversations):
        return _write_conversations(work, settings, corpus)
    return _answer_questions(work, settings)


class _Writer:
    """Lets the teacher respond, and keeps all responses in a file.

    Args:
        work: the step.
        settings: the recipe's section.
    """

    def __init__(self, work: Work, settings: Generate) -> None:
        self.journal = JsonlLog(work.folder / "responses.jsonl")
        self.teacher: PreparedTeacher = artifacts.teacher(work, settings.by)
        crosses = crossing_loss(work.recipe) is not None
        self.tokenizer = self.teacher.tokenizer() if crosses else artifacts.tokenizer(work)
        self._work, self._settings = work, settings
        self._done: dict[Key, Response] = {one.key: one for one in (Response(**row) for row in self.journal.rows)}
        self._model: Any = None
        told = only_writes(work.recipe, settings.by)
        self._log = WrittenLog(work.folder / WRITTEN, ends_of(self.tokenizer)) if told else None

    def __call__(self, requests: Sequence[Request], samples: int) -> list[Response]:
        """All responses to the requests, those of an earlier attempt included."""
        wanted = {(request.id, sample) for request in requests for sample in range(samples)}
        already = [key for key in self._done if key in wanted]
        with progress(f"{self._settings.by} answers", len(wanted), "answers", len(already)) as advance:
            if len(already) < len(wanted):
                decoding = replace(Decoding.of(self._settings), samples=samples)
                for batch in responses(self._writer(), requests, decoding, already, key=LIMIT):
                    self.journal.append(one.as_row() for one in batch)
                    self._done |= {one.key: one for one in batch}
                    advance(len(batch))
        return [self._done[key] for key in sorted(wanted)]

    def files(self) -> list[Path]:
        """The files of all responses, and of what a server told of them."""
        return [self.journal.file, *([] if self._log is None else [self._log.file])]

    def traffic(self) -> dict[str, Any]:
        """What a server was asked in all attempts, for the manifest; nothing of a teacher that runs here."""
        asks = isinstance(self._model, ServerModel | WritingModel)
        found = self._model.server.client.traffic if asks else kept_traffic(self._work.folder / TRAFFIC)
        return {} if found is None else {"traffic": asdict(found)}

    def _writer(self) -> NamedModel:
        if self._model is None:
            self._model = artifacts.writing_teacher(self._work, self._settings.by)
            if isinstance(self._model, ServerModel | WritingModel):
                self._model.server.client.keep_traffic(self._work.folder / TRAFFIC)
            if self._log is not None:
                self._model = replace(self._model, keep=self._log.keep)
        return NamedModel(self._model, self.tokenizer, f"teacher {self._settings.by!r}")


def _answer_questions(work: Work, settings: Generate) -> Made:
    writer = _Writer(work, settings)
    prompt, key = work.recipe.all_strategies[settings.strategy].teacher, f"strategies.{settings.strategy}.teacher"
    questions = {row["id"]: row for row in artifacts.questions(work, "train")}
    asked = [
        Request(
            each,
            prompt_ids(writer.tokenizer, prompt, row, each, key),
            () if writer.tokenizer.chat_template is None else prompt_messages(prompt, row, each, key),
        )
        for each, row in questions.items()
    ]
    done = writer(asked, settings.samples)
    references = {each: {"reference": row["reference"]} for each, row in questions.items()}
    fingerprint = template_fingerprint(writer.tokenizer, prompt)
    kept, summary = kept_answers(references, done, settings, fingerprint, by_number=work.recipe.judges_numbers)
    say(f"  {summary}")
    answers = work.folder / "answers.jsonl"
    write_text(answers, _lines(kept))
    counts = vars(summary) | {"tokens": sum(one.tokens for one in done)}
    made = f"{summary.kept:,} answers kept of {summary.responses:,} by {settings.by}"
    return Made([answers, *writer.files()], counts | writer.traffic() | {"made": made})


def _write_conversations(work: Work, settings: Generate, corpus: Conversations) -> Made:
    write = _Writer(work, settings)
    template, reading = teacher_template(write.tokenizer, corpus), reading_under(work.recipe, settings.strategy)
    shown = (
        None
        if reading is None
        else partial(as_teachers_read, reading=reading, key=key_under(work.recipe, settings.strategy))
    )
    turns = TurnWriter(settings, template, _room(write.teacher, settings, corpus), write, shown)
    drafts = turns.write(artifacts.conversations(work, "conversations"))
    say(f"  {turns.counts}")
    if not turns.counts.turns:
        raise UserError(
            f"`generate`: no turn of teacher {settings.by!r} may be learned ({turns.counts}); {_advice(turns)}"
        )
    answers = work.folder / "answers.jsonl"
    asked = {"teacher": settings.by, "revision": write.teacher.fingerprint, "template": template.digest}
    asked |= settings.model_dump(mode="json", include={"temperature", "top_p", "top_k", "seed", "max_new_tokens"})
    write_text(answers, _lines(_row(draft, asked) for draft in drafts))
    tally = ChatTally()
    conversations = [draft.conversation for draft in drafts]
    # What a teacher writes must not stop a run.
    lenient = corpus.model_copy(update={"on_bad_row": "drop"})
    counts, taught = turns.counts.as_json(), row_teachers(work.recipe)
    counted = None if taught is None else TaughtCounts()
    counts["train_samples"] = save_samples(
        work.folder / "train", conversations, write.tokenizer, lenient, tally, counted
    )
    audit = save_audit(work.folder, tally, write.tokenizer, corpus)
    if not counts["train_samples"]:
        raise UserError(
            f"`generate`: none of the {len(drafts):,} conversations of teacher {settings.by!r} fits into "
            f"`corpus.sequence_length: {corpus.sequence_length}`; raise it, or lower `{LIMIT}`"
        )
    if taught is not None and counted is not None:
        counts |= counted.figures(work.recipe, taught)
    figures = f"{counts['train_samples']:,} samples, {audit.share:.1%} of their tokens supervised"
    say(f"  {figures}; see {work.folder / 'audit.html'}")
    made = f"{turns.counts.turns:,} turns by {settings.by} in {len(drafts):,} conversations"
    outputs = [answers, *write.files(), *(work.folder / name for name in ("train", *AUDIT))]
    return Made(outputs, counts | audit_figures(audit) | write.traffic() | {"made": made})


def _room(teacher: PreparedTeacher, settings: Generate, corpus: Conversations) -> int:
    """The most tokens of a prompt, after which a teacher has room for a whole answer that can be learned."""
    positions = positions_of(teacher.config().get_text_config())
    longest = [corpus.sequence_length - 1] if corpus.too_long == "drop" else []
    if positions is None:
        return min([*longest, 2**62])
    if positions <= settings.max_new_tokens:
        raise UserError(
            f"`{LIMIT}` is {settings.max_new_tokens:,}, and teacher {settings.by!r} has only {positions:,} positions; "
            "lower it"
        )
    return min([*longest, positions - settings.max_new_tokens])


def _row(draft: Draft, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation as a row that `corpus.conversations` can read, with its provenance."""
    conversation = draft.conversation
    row = {name: json.loads(text) for name, text in conversation.as_row().items()}
    turns = [asdict(turn) for turn in draft.written]
    return {"id": draft.id, "source": conversation.source, **row, "provenance": {**asked, "turns": turns}}


def _advice(turns: TurnWriter) -> str:
    return "raise `max_new_tokens`" if turns.counts.hit_limit else "loosen its rules, or ask another teacher"


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
