"""The notes at the end of the page: how models were measured, and the limits of the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.data.alignment_figures import HELD_OUT_TEXT, AlignmentFigures
from potstill.data.compared_turns import ComparedTurns
from potstill.data.row_teachers import NOBODY
from potstill.recipe import Recipe
from potstill.recipe.conversations import Conversations, HeldOutConversations
from potstill.recipe.corpus import HeldOutText
from potstill.recipe.questions import HeldOutQuestions
from potstill.recipe.select import LOSS


def notes(recipe: Recipe, run_folder: Path, undecided: Mapping[str, Sequence[int]], decided: int) -> tuple[str, ...]:
    """All notes, one or two sentences each.

    Args:
        recipe: the recipe of the run.
        run_folder: the folder of the run.
        undecided: for each model, the number of undecided answers of each seed. Empty unless the recipe asks questions.
        decided: the number of different answers that people have decided.
    """
    if recipe.chats:
        of_chats = (*_of_conversations(recipe), *_of_missing_teachers(recipe))
        return (*of_chats, *_of_training(recipe, "conversations", "conversations"), *_of_tasks(recipe))
    if not recipe.asks:
        return (*_of_text(recipe), *_of_training(recipe, "text", "documents"), *_of_tasks(recipe))
    return (
        *_of_answers(recipe),
        *_of_decisions(run_folder, undecided, decided),
        *_of_missing_teachers(recipe),
        *_of_training(recipe, "questions", "questions"),
        *_of_tasks(recipe),
    )


def taught_rows(taught: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """The note of a run whose teachers teach some rows only.

    Args:
        taught: the training samples and supervised tokens of each teacher, and of no teacher.
    """
    tokens = {name: counts["supervised_tokens"] for name, counts in taught.items()}
    each = [
        f"{name} {counts['samples']:,}" + (f" ({tokens[name]:,} supervised tokens)" if tokens[name] else "")
        for name, counts in taught.items()
    ]
    alone = " Samples without a teacher are learned by cross-entropy alone." * (NOBODY in taught)
    return (f"Training samples of each teacher: {', '.join(each)}.{alone}",) if taught else ()


def across_tokenizers(alignment: Mapping[str, Mapping[str, int]] | None) -> tuple[str, ...]:
    """The notes of a run whose teachers have another tokenizer than the student.

    Args:
        alignment: the counts of :class:`AlignmentFigures` by the teachers' names; None where there is one tokenizer.
    """
    if alignment is None:
        return ()
    figures = {name: AlignmentFigures(**counts) for name, counts in alignment.items()}
    told = {name: one.told(HELD_OUT_TEXT) for name, one in figures.items()}
    if len(told) == 1:
        notes = [f"Teacher and student have different tokenizers: {one}." for one in told.values()]
    else:
        notes = [f"The teacher {name} and the student have different tokenizers: {one}." for name, one in told.items()]
    return (
        *notes,
        "Losses per token are of each model’s own tokens. Bits per byte compare all models.",
    )


def counterparts(shares: Mapping[str, float]) -> tuple[str, ...]:
    """The note about the share of each teacher's probability that lies on tokens of the student's vocabulary.

    Args:
        shares: by the teacher's label; empty where there is one tokenizer.
    """
    return tuple(
        f"On the held-out text, {share:.1%} of the {teacher}’s probability lies on tokens that the student has too. "
        "That part alone can be compared token by token."
        for teacher, share in shares.items()
    )


def compared_turns(counts: Mapping[str, Mapping[str, int]] | None) -> tuple[str, ...]:
    """The notes of a run whose teachers read conversations or questions by their own tokenizers and chat templates.

    Args:
        counts: those of :class:`ComparedTurns` by the teachers' names; None where there is one tokenizer.
    """
    if counts is None:
        return ()
    what = "Teacher and student have different tokenizers and chat templates: "
    told = {name: ComparedTurns(**one) for name, one in counts.items()}
    if len(told) == 1:
        alone = "Only answers compare the teacher with the other models."
        return tuple(f"{what}{one.told()}. {alone}" for one in told.values())
    every = "; ".join(one.told(teacher=f"the teacher {name}") for name, one in told.items())
    return (
        f"Teachers and student have different tokenizers and chat templates: {every}. Only answers compare teachers "
        "with the other models.",
    )


def _of_text(recipe: Recipe) -> list[str]:
    length = recipe.corpus.sequence_length
    return [
        f"Held-out sequences of {length} tokens were drawn once, at random. This run trained no model on them."
        if isinstance(recipe.corpus.held_out, HeldOutText)
        else "Held-out documents were chosen by a hash of their text before documents were cut. This run trained no "
        "model on them.",
        f"Each token but the first is predicted once, in windows of {length} tokens.",
    ]


def _of_answers(recipe: Recipe) -> list[str]:
    answers, of_its_own = recipe.answers, isinstance(recipe.corpus.held_out, HeldOutQuestions)
    return [
        "Held-out questions are a separate set. Training questions that also occur in it were removed from training."
        if of_its_own
        else "Held-out questions were chosen by a hash of their text. This run trained no model on them.",
        f"Every model was asked with the same prompt, the student’s prompt of the strategy {answers.strategy}, and "
        f"answered greedily, with at most {answers.max_new_tokens:,} tokens.",
        *(_of_numbers() if recipe.judges_numbers else _of_references()),
        "The student before training shows the result without distillation."
        + (
            f" The control is fine-tuned on the same answers as {recipe.first_variant or 'the student'}, with "
            "cross-entropy alone."
            if recipe.control is not None
            else ""
        ),
    ]


def _of_numbers() -> list[str]:
    return [
        "The number of an answer is the first number in a box; or else the number on its first line, if there is only "
        "one value; or else the number after “the answer is”; or else its last number. If no rule settles an answer, a "
        "person decides."
    ]


def _of_references() -> list[str]:
    return [
        "ROUGE-L and sentence similarity compare an answer with the reference, both without reasoning. Random pairs "
        "compare it with the references of other prompts: look at the distance to that row.",
        "Repetition is the share of an answer’s 4-grams of tokens that stood in it before.",
    ]


def _of_conversations(recipe: Recipe) -> list[str]:
    assert isinstance(recipe.corpus, Conversations)
    of_its_own, reading = isinstance(recipe.corpus.held_out, HeldOutConversations), ""
    if recipe.corpus.teacher is not None:
        reading = "The teachers read the conversation as the recipe’s `corpus.teacher` says, and write after that."
    if recipe.uses_strategies:
        reading = (
            "The words of a strategy stand in training samples alone. Here, the teachers read every conversation "
            "without them, so that all students are compared with one teacher."
        )
    return [
        "Held-out conversations are a separate set. Training conversations that also occur in it were removed from "
        "training."
        if of_its_own
        else "Held-out conversations were chosen by a hash of their messages. This run trained no model on them.",
        "Loss, KL and agreement are over the assistant’s turns and the tokens that end them, each after the whole "
        "conversation before it. All turns are judged, whichever ones are learned.",
        "Every model wrote the last turn of the assistant after the same conversation, greedily, with at most "
        f"{recipe.answers.max_new_tokens:,} tokens. An answer stopped by itself if it has the token that ends a turn, "
        "or a text, within that limit.",
        *([reading] if reading else []),
        *_of_references(),
    ]


def _of_decisions(run_folder: Path, undecided: Mapping[str, Sequence[int]], decided: int) -> list[str]:
    said = []
    if waiting := sum(map(sum, undecided.values())):
        each = ", ".join(f"{model} {sum(seeds):,}" for model, seeds in undecided.items() if any(seeds))
        said.append(
            f"{waiting:,} answers that no rule settles count as wrong until a person decides them with "
            f"`potstill review {run_folder}` ({each})."
        )
    if decided:
        said.append(f"People decided {decided:,} different answers; see review/decisions.csv in the run folder.")
    return said


def _of_missing_teachers(recipe: Recipe) -> list[str]:
    if recipe.answers.teachers:
        return []
    return ["The teachers did not answer, so the page cannot show how much students could still improve."]


def _of_training(recipe: Recipe, judged_on: str, units: str) -> list[str]:
    said = []
    are = "is" if judged_on == "text" else "are"
    if recipe.distil.keep == "best":
        said.append(
            "Student and control are the best of their saved weights, by cross-entropy on validation "
            f"{judged_on}, which {are} not reported."
        )
    if recipe.select is not None:
        by = " and ".join(recipe.select.by)
        others = ", ".join(metric for metric in recipe.select.by if metric != LOSS)
        halves = f" For {others}, half of the items select, and only the other half is reported." if others else ""
        said.append(
            f"Student and control are the best snapshots of their training by {by}, on {judged_on} that {are} not "
            f"reported; among ties, the earliest, and if all tie, the last.{halves}"
        )
    if recipe.control is None:
        said.append("The recipe leaves the control out, so the page cannot tell distillation from training alone.")
    if len(recipe.seeds) == 1:
        said.append(f"One seed: the intervals are over {units}; another training could differ by more.")
    return said


def _of_tasks(recipe: Recipe) -> list[str]:
    said = []
    if recipe.evaluate.tasks:
        said.append(
            "The figures of tasks are lm-eval’s own, with intervals by potstill. lm-eval’s standard errors are in "
            "evaluate/comparison.json. The judgements of differences are corrected (Holm) for all tasks together."
        )
    if recipe.evaluate.models:
        named = ", ".join(f"{name} is {source}" for name, source in recipe.evaluate.models.items())
        said.append(f"Baselines, which this run did not make, were asked in the same way: {named}.")
    return said
