"""strategies: make the prompts of teacher and student for each question or conversation, and samples of them.

Makes `strategies/STRATEGY/own/train/` and, if the recipe selects weights, `validation/`; for a placebo, the same in
`STRATEGY/another_question/`; and `STRATEGY/held_out/samples/`, the prompts that every model answers; for a teacher of
another tokenizer, `STRATEGY/held_out/samples-TEACHER/`. All are plain `datasets` folders of :class:`AlignedSample`, or
of what a student and teachers of other tokenizers read (``data/prompts/across.py``). Later stages read them and do not
make them again, because some chat templates put the day's date into a prompt. Of conversations, samples are made where
a student has a strategy; every model is asked held-out conversations as they are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from potstill.console import say
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import ALIGNED, aligned_rows
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.across import AcrossSampleBuilder, AnswerReader
from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.data.prompts.collator import AlignedSample
from potstill.data.prompts.placebo import placebo_samples
from potstill.data.row_teachers import TEACHERS
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import PIECE_COLUMNS, PIECES
from potstill.errors import UserError
from potstill.files.atomic import atomic_folder
from potstill.files.dataset_writer import dataset_writer, save_dataset
from potstill.pipeline import artifacts
from potstill.pipeline.alignment import STUDENT, answer_readers, compared_turns
from potstill.pipeline.row_teachers import with_teachers
from potstill.pipeline.steps import HELD_OUT_SAMPLES, held_out_questions_step, held_out_samples_of
from potstill.pipeline.work import Made, Work
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.chat_strategies import key_under, reading_under
from potstill.recipe.conversations import Conversations, TeacherReading
from potstill.recipe.questions import Questions
from potstill.recipe.row_rules import teaches_by_row
from potstill.recipe.strategies import Strategy

_OF_STUDENT = {
    "id": Value("string"),
    "input_ids": List(Value("int32")),
    "labels": List(Value("int32")),
    "answer_start": Value("int32"),
    "answer_cut": Value("int32"),
}
SAMPLE = Features({**_OF_STUDENT, "teacher_input_ids": List(Value("int32")), "teacher_answer_start": Value("int32")})
SAMPLE_ACROSS = Features({**_OF_STUDENT, **dict.fromkeys(PIECE_COLUMNS, List(List(Value("int32"))))})


def run(work: Work) -> Made:
    """Make the samples of one sample set, or of the held-out questions."""
    if isinstance(work.recipe.corpus, Conversations):
        return _of_conversations(work, work.recipe.corpus)
    more, of_teachers = dict[str, Any](), dict[str, list[Any]]()
    if work.step == held_out_questions_step(work.recipe):
        samples, of_teachers = _held_out_samples(work)
    else:
        samples, more = _sample_set_samples(work)
    written = {**samples, **of_teachers}
    for name, rows in written.items():
        _save(rows, work, name)
    whole = [row for rows in samples.values() for row in rows]
    tokens, cut = sum(len(row["input_ids"]) for row in whole), sum(row["answer_cut"] > 0 for row in whole)
    learned = sum(len(row["input_ids"]) - row["answer_start"] for row in whole)
    said = f"{len(whole):,} answers of {learned / len(whole):,.0f} tokens"
    say(f"  {said}, {cut:,} cut at `corpus.sequence_length` or `teacher_length`" if cut else f"  {said}")
    counts = {"samples": len(whole), "tokens": tokens, "answer_tokens": learned, "answers_cut": cut}
    return Made([work.folder / name for name in written], counts | more | {"made": said})


def _held_out_samples(work: Work) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """The held-out questions as every model reads them, and as teachers of other tokenizers do, by folder."""
    # Teachers answer the same prompt as every other model.
    name = work.recipe.answers.strategy
    prompt = work.recipe.all_strategies[name].student
    asked, rows = {name: Strategy(teacher=prompt, student=prompt)}, artifacts.questions(work, "held_out")
    samples = {HELD_OUT_SAMPLES: _samples_by_strategy(work, asked, rows)[name]}
    if crossing_loss(work.recipe) is None:
        return samples, {}
    of_teachers: dict[str, list[Any]] = {}
    for teacher, reader in answer_readers(work).items():
        make = AlignedSampleBuilder(asked, reader.bytes.tokenizer, reader.longest, reader.longest)
        of_teachers[held_out_samples_of(teacher)] = [make(row, row["id"])[name] for row in rows]
    return samples, of_teachers


def _sample_set_samples(work: Work) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The samples of a sample set by part, and how much of them is compared with teachers of other tokenizers."""
    recipe = work.recipe
    assert work.step.name is not None
    assert isinstance(recipe.corpus, Questions)
    sample_set = recipe.sample_sets[work.step.name]
    strategies = {each.strategy: recipe.all_strategies[each.strategy] for each in recipe.sample_sets.values()}
    parts = {"train": artifacts.answered_questions(work)}
    if recipe.corpus.validation is not None:
        parts["validation"] = artifacts.questions(work, "validation")
    if crossing_loss(recipe) is not None:
        return _samples_across(work, strategies, sample_set.strategy, parts)
    samples = {name: _samples_by_strategy(work, strategies, rows)[sample_set.strategy] for name, rows in parts.items()}
    if not sample_set.own:
        longest = recipe.corpus.teacher_length or recipe.corpus.sequence_length
        samples["train"] = placebo_samples(samples["train"], longest)
    return samples, {}


def _samples_across(
    work: Work, strategies: Mapping[str, Strategy], own: str, parts: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The same where teachers have other tokenizers."""
    assert isinstance(work.recipe.corpus, Questions)
    student = AnswerReader(TokenBytes(artifacts.tokenizer(work), STUDENT), work.recipe.corpus.sequence_length)
    readers = answer_readers(work)
    names = [*readers] if teaches_by_row(work.recipe) else None
    samples, compared = dict[str, list[Any]](), dict[str, Any]()
    for name, rows in parts.items():
        make = AcrossSampleBuilder(strategies, own, student, [*readers.values()], names)
        samples[name] = [make(row, row["id"]) for row in rows]
        if name == "train":
            compared = compared_turns(readers, make.compared)
    return samples, compared


def _samples_by_strategy(
    work: Work, strategies: Mapping[str, Strategy], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    corpus = work.recipe.corpus
    assert isinstance(corpus, Questions)
    longest = corpus.sequence_length
    prompter = AlignedSampleBuilder(strategies, artifacts.tokenizer(work), longest, corpus.teacher_length or longest)
    made = [prompter(row, row["id"]) for row in rows]
    teachers = [{TEACHERS: row[TEACHERS]} if TEACHERS in row else {} for row in rows]
    return {name: [{**each[name], **own} for each, own in zip(made, teachers, strict=True)] for name in strategies}


def _of_conversations(work: Work, corpus: Conversations) -> Made:
    assert work.step.name is not None
    recipe = work.recipe
    # What a teacher writes must not stop a run.
    corpus = corpus if recipe.generate is None else corpus.model_copy(update={"on_bad_row": "drop"})
    in_use = dict.fromkeys(each.strategy for each in recipe.sample_sets.values())
    readings = {key_under(recipe, name): reading_under(recipe, name) or TeacherReading() for name in in_use}
    own = key_under(recipe, recipe.sample_sets[work.step.name].strategy)
    parts = {"train": artifacts.learned_conversations(work)}
    if corpus.validation is not None:
        parts["validation"] = list(artifacts.conversations(work, "validation_conversations").values())
    features = Features({name: List(Value("int32")) for name in ALIGNED})
    features = with_teachers(features) if teaches_by_row(recipe) else features
    counts, tally = Counter[str](), ChatTally()
    for name, conversations in parts.items():
        with dataset_writer(work.folder / name, features) as write:
            for rows in aligned_rows(conversations, artifacts.tokenizer(work), corpus, readings, tally):
                write(rows[own])
                counts[f"{name}_samples"] += 1
                counts["tokens"] += len(rows[own]["teacher_input_ids"])
                counts["answer_tokens"] += sum(label != IGNORE_INDEX for label in rows[own]["labels"])
        if not counts[f"{name}_samples"]:
            why = Counter(reason for source in tally.sources.values() for reason in source.dropped.elements())
            raise UserError(
                f"`experiments`: none of the {len(conversations):,} conversations gives a sample for the strategies "
                f"{', '.join(in_use)} (most often: {why.most_common(1)[0][0]}); shorten the strategies, or raise "
                "`corpus.sequence_length` or `corpus.teacher.sequence_length`"
            )
    samples = counts["train_samples"] + counts["validation_samples"]
    counts["conversations_left_out"] = sum(source.dropped.total() for source in tally.sources.values())
    said = f"{samples:,} samples with {counts['answer_tokens'] / samples:,.0f} learned tokens"
    left_out = counts["conversations_left_out"]
    say(f"  {said}, {left_out:,} conversations left out" if left_out else f"  {said}")
    return Made([work.folder / name for name in parts], {**counts, "samples": samples, "made": said})


def _save(rows: Sequence[AlignedSample], work: Work, name: str) -> None:
    features = SAMPLE_ACROSS if rows and PIECES in rows[0] else SAMPLE
    features = with_teachers(features) if rows and TEACHERS in rows[0] else features
    with atomic_folder(work.folder / name) as partial:
        save_dataset(Dataset.from_list([dict(row) for row in rows], features=features), partial)
