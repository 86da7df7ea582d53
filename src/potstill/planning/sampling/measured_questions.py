"""Measured questions: the lengths of prompts and answers, from the samples of some questions on this machine."""

from collections.abc import Sequence
from typing import Any

from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.data.prompts.collator import AlignedSample
from potstill.data.questions import Question, split_questions
from potstill.planning.amounts import ANSWER_TOKENS, Amounts
from potstill.planning.ranges import Range
from potstill.planning.sampling.estimate import drawn, mean
from potstill.planning.sampling.local_files import check_size, local_files
from potstill.recipe import Recipe
from potstill.recipe.questions import HeldOutQuestions, Questions

QUESTIONS = 200
"""The greatest number of questions whose prompts are made."""


def measured_questions(recipe: Recipe, corpus: Questions, tokenizer: Any) -> Amounts:
    """The amounts of questions whose sources are on this machine.

    Where a teacher writes the answers, their length is assumed.

    Args:
        recipe: the recipe.
        corpus: its corpus.
        tokenizer: the run's tokenizer.

    Raises:
        UserError: a source is not on this machine or too large, or is wrong as `split_questions` and
            `AlignedSampleBuilder` say.
    """
    files = local_files(corpus.questions, "corpus.questions")
    if isinstance(corpus.held_out, HeldOutQuestions):
        files += local_files(corpus.held_out.questions, "corpus.held_out.questions")
    check_size(files, "corpus.questions")
    split = split_questions(corpus)
    count, held = len(split.train), len(split.held_out)
    some = [split.train[place] for place in drawn(count, QUESTIONS)]
    by_set = _samples(recipe, corpus, tokenizer, some)
    made = [sample for several in by_set.values() for sample in several]
    every = count * len(made) / len(some)
    prompt = _at_longest([float(one["answer_start"]) for one in made], every)
    theirs = _at_longest([float(one["teacher_answer_start"]) for one in made], every)
    answer = _at_longest([float(len(one["input_ids"]) - one["answer_start"]) for one in made], every)
    if recipe.generate is not None:
        answer = ANSWER_TOKENS.at_most(recipe.generate.max_new_tokens)
    length = (prompt + answer).at_most(corpus.sequence_length)
    longest = corpus.teacher_length or corpus.sequence_length
    # Each question has one sample in a set, and the student's are the same in all.
    own = () if recipe.generate is not None else tuple(float(len(one["input_ids"])) for one in made[: len(some)])
    written = "" if recipe.generate is None else "; the length of written answers is assumed"
    cut = mean([float(one["answer_cut"] > 0) for one in made], every)
    return Amounts(
        samples=Range.exactly(count),
        tokens=length * float(count),
        length=length,
        teacher_length=(theirs + answer).at_most(longest),
        teacher_lengths={
            name: (_at_longest([float(one["teacher_answer_start"]) for one in several], count) + answer).at_most(
                longest
            )
            for name, several in by_set.items()
        },
        lengths=own,
        answer=answer.at_most(corpus.sequence_length),
        held_out_samples=Range.exactly(held),
        held_out_tokens=length * float(held),
        validation_samples=corpus.validation or 0,
        origin=f"measured: the prompts of {len(some):,} of {count:,} questions were made{written}",
        lost={
            "questions that repeat others": Range.exactly(split.repeated),
            "answers that lose their end": cut.at_most(1.0) * float(count),
        },
    )


def _samples(
    recipe: Recipe, corpus: Questions, tokenizer: Any, some: Sequence[Question]
) -> dict[str, list[AlignedSample]]:
    """The samples of some questions, by the sample sets of the recipe."""
    strategies = {one.strategy: recipe.all_strategies[one.strategy] for one in recipe.sample_sets.values()}
    longest = corpus.sequence_length
    build = AlignedSampleBuilder(strategies, tokenizer, longest, corpus.teacher_length or longest)
    made = [build({**one.columns, **one.fields, "id": one.id, "answer": one.reference}, one.id) for one in some]
    return {
        name: [samples[of_set.strategy] for samples in made if of_set.strategy in samples]
        for name, of_set in recipe.sample_sets.items()
    }


def _at_longest(lengths: Sequence[float], population: float) -> Range:
    """The mean length, and as its greatest value the longest one: batches have room for it."""
    found = mean(lengths, population)
    return Range(found.low, found.expected, max(found.high, *lengths))
