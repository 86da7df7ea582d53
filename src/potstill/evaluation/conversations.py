"""Conversations: each model's loss on the assistant's held-out turns and its distance from the teachers, by turn.

All turns of the assistant are judged, whichever ones the recipe learns: so students that learn other turns can be
compared. The unit is the conversation. Makes `scores/`, each model's sums by conversation and turn.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.conversation import BadRowError, Conversation, NothingLearnedError
from potstill.data.conversations.render import ChatSample
from potstill.data.conversations.samples import samples_of
from potstill.data.conversations.tally import ChatTally
from potstill.data.conversations.training_rows import aligned_pairs, teacher_template
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.evaluation.baselines import compared_vocabulary
from potstill.evaluation.candidate_models import Measurement, Models, pairs_to_compare, reading_alike
from potstill.evaluation.document_scores import HeldOutBatches, TeacherReaders, fit_together, score_all, sums_of
from potstill.evaluation.held_out_prompts import FEWEST
from potstill.evaluation.taught_items import by_part, parts_of_items, taught_alone, told
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.comparison import compare
from potstill.metrics.conversations.turn_scores import TurnScores, row_of
from potstill.metrics.conversations.turns import TURNS
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.work import Work
from potstill.recipe.conversations import Conversations


def measure(work: Work, models: Models) -> Measurement:
    """Score every model on the held-out conversations, and compare the models."""
    recipe, models = work.recipe, reading_alike(work, models)
    text = held_out_turns(work)
    judged = len(text.document_bytes) // len(TURNS)
    readers = TeacherReaders(work, text, keep_states=not fit_together(work, models))
    found = score_all(work, models, text, readers)
    parts = text.parts
    taught = {
        name: [TurnScores(one if parts is None else taught_alone(one, parts, len(TURNS))) for one in seeds]
        for name, seeds in found.items()
    }
    resampling = Resampling(recipe.evaluate.confidence, recipe.evaluate.resamples)
    scores, metrics = by_part(taught, parts, readers.metrics(taught["start"][0].metrics()))
    readers.close()
    rows, differences = compare(scores, pairs_to_compare(work, models), metrics, sums_of(scores), resampling)
    tokens = int(found["start"][0].tokens.sum())
    made = f"{sum(map(len, scores.values()))} models on {judged:,} held-out conversations"
    counts = {"conversations": judged, "tokens": tokens, "made": made}
    return Measurement(rows, differences, outputs=[work.folder / "scores"], summary=counts, more=told(parts))


def held_out_turns(work: Work) -> HeldOutBatches:
    """The held-out conversations that have a sample. Each has a unit for each group of its turns.

    Raises:
        UserError: there are fewer than two, or one cannot be rendered.
    """
    held_out = list(artifacts.conversations(work, "held_out").values())[: work.recipe.evaluate.documents]
    made = sorted(_samples(work, held_out), key=lambda one: -len(one[1]["input_ids"]))
    numbers = {number: place for place, number in enumerate(sorted({number for number, _ in made}))}
    if len(numbers) < FEWEST:
        raise UserError(
            f"`corpus.held_out`: {len(numbers)} of {len(held_out):,} held-out conversations can be judged, and an "
            f"interval needs {FEWEST}; hold out more, or raise `corpus.sequence_length`"
        )
    return HeldOutBatches(
        [sample for _, sample in made],
        [_units(numbers[number], sample) for number, sample in made],
        [0] * (len(numbers) * len(TURNS)),
        training_data.corpus_collator(work),
        work.recipe.evaluate.batch_size,
        compared_vocabulary(work),
        parts_of_items(work.recipe, [held_out[number].teachers for number in numbers]),
    )


def _samples(work: Work, held_out: Sequence[Conversation]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The samples of each conversation as student and teachers read them, with the conversation's number."""
    corpus, tokenizer = work.recipe.corpus, artifacts.tokenizer(work)
    assert isinstance(corpus, Conversations)
    every, tally = corpus.model_copy(update={"learn": "all"}), ChatTally()
    ours = chat_template(tokenizer, corpus)
    theirs = None if corpus.teacher is None else teacher_template(tokenizer, corpus)
    for number, conversation in enumerate(held_out):
        try:
            if theirs is not None:
                made = aligned_pairs(conversation, ours, theirs, every)
            else:
                made = [_as_dict(sample) for sample in samples_of(conversation, ours, every, tally)]
        except NothingLearnedError:
            continue
        except BadRowError:
            if corpus.on_bad_row == "refuse":
                raise
            continue
        yield from ((number, sample) for sample in made)


def _as_dict(sample: ChatSample) -> dict[str, Any]:
    return {"input_ids": sample.input_ids, "labels": sample.labels, "turns": sample.turns}


def _units(conversation: int, sample: Mapping[str, Any]) -> NDArray[np.int64]:
    """The row of the sums of each supervised token of a sample."""
    turns, labels = sample["turns"], np.asarray(sample["labels"])
    counts = [int((labels[max(turn.start, 1) : turn.stop] != IGNORE_INDEX).sum()) for turn in turns]
    assert sum(counts) == (labels[1:] != IGNORE_INDEX).sum(), "a learned token is in no turn"
    return np.repeat([row_of(conversation, turn.turn) for turn in turns], counts)
