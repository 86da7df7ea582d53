"""Training data: the samples of each training, and the collator of its batches, for text and for questions."""

from dataclasses import dataclass
from typing import Any

from datasets import load_from_disk

from potstill.data.collators import Collate, Collator, pad_token_id
from potstill.data.prompts.align import AlignedSampleBuilder
from potstill.data.prompts.collator import AlignedCollator, as_the_teacher_reads
from potstill.data.random_offsets import RandomOffsets
from potstill.pipeline import artifacts, recipe_inputs
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import Candidate
from potstill.recipe.conversations import Conversations
from potstill.recipe.questions import Questions
from potstill.recipe.step import Step
from potstill.recipe.strategies import Strategy
from potstill.training.fit import Samples, TrainingData


def for_student(work: Work, variant: str | None, seed: int) -> TrainingData:
    """The training data of a student and of its control, in the order of the corpus.

    Args:
        work: the step.
        variant: the student's name among the experiments.
        seed: the seed of random offsets.
    """
    recipe = work.recipe
    if recipe.uses_strategies:
        return for_sample_set(work, recipe.sample_set_of(variant).name)
    return _of_corpus(work, taught_by(work.recipe), seed)


def for_candidate(work: Work, trained: Candidate) -> TrainingData:
    """The training data of a student or of the control."""
    assert trained.seed is not None
    return for_student(work, work.recipe.first_variant if trained.role == "control" else trained.name, trained.seed)


def for_sample_set(work: Work, name: str | None) -> TrainingData:
    """The data that is captured: the samples of a sample set; for text, the samples of the corpus."""
    if name is None:
        return TrainingData(
            load_from_disk(work.run.path(taught_by(work.recipe)) / "train"), None, corpus_collator(work)
        )
    step = Step("strategies", name=name)
    collate: Collate = AlignedCollator(_pad_id(work), same_answer=work.recipe.sample_sets[name].own)
    if crossing_loss(work.recipe) is not None:
        collate = Collator(_pad_id(work))
    return TrainingData(load_from_disk(work.run.path(step) / "train"), _validation(work, step), collate)


def for_teacher(work: Work, seed: int) -> TrainingData:
    """The training data of a teacher that this run trains.

    It is the text; or every question with the teacher's prompt of each strategy, and its reference solution.
    """
    corpus = work.recipe.corpus
    if not isinstance(corpus, Questions):
        # A teacher that writes cannot learn from what it writes.
        return _of_corpus(work, "corpus", seed)
    strategies = {
        sample_set.strategy: work.recipe.all_strategies[sample_set.strategy]
        for sample_set in work.recipe.sample_sets.values()
    }
    longest = corpus.teacher_length or corpus.sequence_length
    prompter = AlignedSampleBuilder(strategies, artifacts.tokenizer(work), corpus.sequence_length, longest)

    def asked(part: str) -> list[dict[str, Any]]:
        made = (prompter(row, row["id"]) for row in artifacts.questions(work, part))
        read = (as_the_teacher_reads(sample) for samples in made for sample in samples.values())
        return [{"input_ids": ids, "labels": labels} for ids, labels in read]

    validation = None if corpus.validation is None else asked("validation")
    return TrainingData(asked("train"), validation, Collator(_pad_id(work)))


def for_start(work: Work) -> TrainingData:
    """The data on which a student is measured before training.

    It is the text; or the questions with the first student's prompt and their reference solutions. The teacher's
    answers may not exist yet.
    """
    corpus = work.recipe.corpus
    if not isinstance(corpus, Questions):
        return TrainingData(
            load_from_disk(work.run.path("corpus") / "train"), _validation(work, "corpus"), corpus_collator(work)
        )
    asked = {"start": Strategy(teacher=(prompt := recipe_inputs.first_student_prompt(work.recipe)), student=prompt)}
    prompter = AlignedSampleBuilder(asked, artifacts.tokenizer(work), corpus.sequence_length, corpus.sequence_length)
    validation = (
        None if corpus.validation is None else _QuestionSamples(artifacts.questions(work, "validation"), prompter)
    )
    return TrainingData(
        _QuestionSamples(artifacts.questions(work, "train"), prompter), validation, Collator(_pad_id(work))
    )


@dataclass(frozen=True)
class _QuestionSamples:
    """Questions with their references. Each becomes a sample when it is read."""

    questions: list[dict[str, Any]]
    prompter: AlignedSampleBuilder

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.questions[index]
        (sample,) = self.prompter(row, row["id"]).values()
        return {"input_ids": sample["input_ids"], "labels": sample["labels"]}


def _of_corpus(work: Work, stage: str, seed: int) -> TrainingData:
    """The text or the conversations whose samples a stage has made."""
    rows = load_from_disk(work.run.path(stage) / "train")
    train = RandomOffsets(rows, seed) if getattr(work.recipe.corpus, "random_offset", False) else rows
    return TrainingData(train, _validation(work, "corpus"), corpus_collator(work))


def taught_by(recipe: Recipe) -> str:
    """The stage that makes the samples of a student's training: of conversations, that in which a teacher writes."""
    return "generate" if recipe.chats and recipe.generate is not None else "corpus"


def corpus_collator(work: Work) -> Collate:
    """The collator of the corpus's own samples, which teachers may read otherwise than the student."""
    apart = isinstance(work.recipe.corpus, Conversations) and work.recipe.corpus.teacher is not None
    return (AlignedCollator if apart else Collator)(_pad_id(work))


def _validation(work: Work, step: Step | str) -> Samples | None:
    folder = work.run.path(step) / "validation"
    return load_from_disk(folder) if work.recipe.corpus.validation is not None else None


def _pad_id(work: Work) -> int:
    return pad_token_id(artifacts.tokenizer(work))
