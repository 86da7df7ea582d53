"""Artifacts: load the teachers, models, tokenizer, questions and answers that earlier stages left in the run folder."""

import json
from pathlib import Path
from typing import Any

from datasets import load_from_disk
from transformers import PreTrainedModel

from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.training_rows import row_of, stored_conversation
from potstill.data.row_teachers import TEACHERS
from potstill.device import run_dtype
from potstill.files.jsonl_log import read_jsonl
from potstill.generation.server_writer import ServerModel, WritingModel
from potstill.models.pretrained import ModelSource
from potstill.models.shared_vocabulary import shared_vocabulary
from potstill.pipeline.steps import select_step
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss, reads_other_tokens
from potstill.recipe.candidates import Candidate
from potstill.recipe.conversations import Conversations
from potstill.recipe.served import only_writes, served_teachers
from potstill.students.load_and_save import load_student
from potstill.teachers.prepared import PreparedTeacher
from potstill.teachers.served import ServedTeacher, served_config


def existing_teachers(work: Work) -> list[PreparedTeacher]:
    """The teachers that existed before the run."""
    return [teacher(work, name) for name in work.recipe.teachers]


def teachers(work: Work) -> list[PreparedTeacher]:
    """Every teacher of the recipe: first the existing ones, then those that this run trains."""
    return existing_teachers(work) + [teacher(work, name) for name in work.recipe.pretrain]


def teacher(work: Work, name: str) -> PreparedTeacher:
    """One teacher of the recipe, existing or trained by this run."""
    trained = name in work.recipe.pretrain
    folder = work.run.path("pretrain") / name / "model" if trained else work.run.path("teachers") / name
    return PreparedTeacher.load(folder, name, work.recipe.precision, served_teachers(work.recipe).get(name))


def writing_teacher(work: Work, name: str) -> PreTrainedModel | ServerModel | WritingModel:
    """A teacher of the recipe, ready to write."""
    prepared = teacher(work, name)
    if prepared.served is None:
        return prepared.model()
    if only_writes(work.recipe, name):
        return WritingModel(prepared.writer(), served_config(prepared.served), prepared.served)
    beside = prepared.beside()
    assert isinstance(beside, ServedTeacher)
    return ServerModel(beside.server, beside.config)


def start_model(work: Work) -> PreTrainedModel:
    """The student before any training, for reading only."""
    folder = work.run.path("student") / "start"
    return load_student(folder, folder, work.recipe.student, run_dtype(work.recipe.precision))


def trained_model(work: Work, candidate: Candidate) -> PreTrainedModel:
    """A student or a control, for reading only."""
    start, dtype = work.run.path("student") / "start", run_dtype(work.recipe.precision)
    return load_student(trained_folder(work, candidate), start, work.recipe.student, dtype)


def trained_folder(work: Work, candidate: Candidate) -> Path:
    """The folder of a student or control: its last weights, or its selected ones where the recipe has `select`."""
    return work.run.path(candidate.step if work.recipe.select is None else select_step(candidate)) / "student"


def own_model(work: Work, candidate: Candidate) -> PreTrainedModel:
    """The model of a candidate that this run made or prepared, for reading only."""
    if candidate.role == "teacher":
        return teacher(work, teacher_of(work, candidate)).model()
    return start_model(work) if candidate.role == "start" else trained_model(work, candidate)


def teacher_of(work: Work, candidate: Candidate) -> str:
    """The name of a candidate's teacher: a single teacher's candidate has none."""
    return candidate.name or next(iter(work.recipe.all_teachers))


def tokenizer(work: Work) -> Any:
    """The run's own tokenizer, or else the first teacher's; with the chat template that the recipe names."""
    if work.recipe.tokenizer is not None:
        found = ModelSource(str(work.run.path("tokenizer") / "tokenizer"), "the run's tokenizer").tokenizer()
    else:
        found = existing_teachers(work)[0].tokenizer()
    corpus = work.recipe.corpus
    if isinstance(corpus, Conversations) and corpus.template is not None:
        found.chat_template = chat_template(found, corpus).text
    return found


def tokenizer_of(work: Work, candidate: Candidate) -> Any:
    """The tokenizer of a candidate: the run's, or that of a teacher that reads other tokens."""
    if reads_other_tokens(work.recipe, candidate):
        return teacher(work, teacher_of(work, candidate)).tokenizer()
    return tokenizer(work)


def vocabulary_size(work: Work) -> int:
    """The number of logits of a model that this run makes: the run's own tokenizer's, or else the first teacher's."""
    if work.recipe.tokenizer is not None:
        return len(tokenizer(work))
    return existing_teachers(work)[0].config().vocab_size


def compared_vocabulary(work: Work) -> int | None:
    """The number of ids on which student and teachers are compared. None: all logits of their heads.

    A student that is built from its teacher has the teacher's head, padding included. A checkpoint or several teachers
    may have heads of other padded sizes. Earlier stages have proven that their tokens are the same.
    """
    if crossing_loss(work.recipe) is not None:
        ours = tokenizer(work)
        return shared_vocabulary(ours, ours) if work.recipe.student.start == "checkpoint" else None
    rows = [teacher.config().get_text_config().vocab_size for teacher in existing_teachers(work)]
    rows += [vocabulary_size(work)] if work.recipe.pretrain else []
    if work.recipe.student.start != "checkpoint" and len({*rows, vocabulary_size(work)}) == 1:
        return None
    ours = tokenizer(work)
    return min(*rows, shared_vocabulary(ours, ours))


def compared_tokenizer(work: Work) -> Any:
    """The tokenizer whose ids limit the comparison of student and teachers. None: they are compared on all logits."""
    return None if compared_vocabulary(work) is None else tokenizer(work)


def conversations(work: Work, part: str) -> dict[str, Conversation]:
    """The conversations of a part of the corpus, by their ids: `conversations` (to train on),
    `validation_conversations` or `held_out`."""
    return {row["id"]: stored_conversation(row) for row in load_from_disk(work.run.path("corpus") / part)}


def learned_conversations(work: Work) -> list[Conversation]:
    """The training conversations. With `generate`, they have the turns that the teacher wrote."""
    given = conversations(work, "conversations")
    if work.recipe.generate is None:
        return list(given.values())
    written = read_jsonl(work.run.path("generate") / "answers.jsonl")
    rows = ((given[row["id"].partition("#")[0]], row) for row in written)
    return [stored_conversation(row_of(one) | {name: row[name] for name in ("messages", "tools")}) for one, row in rows]


def questions(work: Work, part: str) -> list[dict[str, Any]]:
    """The questions of a part of the corpus: `train`, `validation` or `held_out`.

    Each row has every column that prompts may use, and its reference as its `answer`.
    """
    rows = load_from_disk(work.run.path("corpus") / part)
    kept = [name for name in ("id", "question", "reference", TEACHERS) if name in rows.column_names]
    own = ({name: row[name] for name in kept} for row in rows)
    columns = (json.loads(text) for text in rows["columns"])
    return [{**each, **row, "answer": row["reference"]} for each, row in zip(columns, own, strict=True)]


def answered_questions(work: Work) -> list[dict[str, Any]]:
    """The training questions, each with the `answer` that students learn.

    With `generate`, each of the teacher's answers has a row of its own. Otherwise the answer is the reference.
    """
    rows = questions(work, "train")
    if work.recipe.generate is None:
        return rows
    by_id = {row["id"]: row for row in rows}
    written = read_jsonl(work.run.path("generate") / "answers.jsonl")
    return [
        {**by_id[row["id"]], "id": f"{row['id']}#{row['provenance']['sample']}", "answer": row["answer"]}
        for row in written
    ]
