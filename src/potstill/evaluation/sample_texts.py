"""Sample texts: how teacher, students and control continue the same held-out beginnings, for readers of the report.

They are read and not measured. Makes `samples.json`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import load_from_disk

from potstill.console import say
from potstill.data.prompts.render import token_ids
from potstill.evaluation.candidate_models import CandidateModel, Measurement, Models, loadable
from potstill.files.atomic import write_json
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, responses
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.candidates import Candidate
from potstill.recipe.evaluate import SAMPLE_BEGINNING, SAMPLE_TOKENS

FILE = "samples.json"


@dataclass(frozen=True)
class Beginning:
    """The first tokens of a held-out document, and what follows them there."""

    document: int
    ids: list[int]
    rest: list[int]


def measure(work: Work, models: Models) -> Measurement:
    """Let the first teacher, and the students and the control of the first seed, continue held-out text greedily."""
    begun = list(_beginnings(work))
    if not begun:
        return Measurement()
    tokenizer = artifacts.tokenizer(work)
    written = {
        one.candidate.of_all_seeds.label: _continued(one, begun, tokenizer, _own_tokenizer(work, one))
        for one in _shown(work, models)
    }
    samples = [
        {
            "document": one.document,
            "beginning": _text(tokenizer, one.ids),
            "reference": _text(tokenizer, one.rest),
            "answers": {model: answers[str(one.document)] for model, answers in written.items()},
        }
        for one in begun
    ]
    file = work.folder / FILE
    write_json(file, samples)
    say(f"  {len(begun)} held-out beginnings, continued by {len(written)} models")
    return Measurement(outputs=[file])


def is_shown(work: Work, one: Candidate) -> bool:
    """Whether a model's texts are on the report: the first teacher's, and those of the first seed that learned."""
    if one.role == "teacher":
        return one.name in (None, next(iter(work.recipe.all_teachers)))
    return one.role in ("student", "control") and one.seed == work.recipe.seeds[0]


def _beginnings(work: Work) -> Iterator[Beginning]:
    """Of the first documents in the order of their hashes; at most the first half of each."""
    held_out = load_from_disk(work.run.path("corpus") / "held_out")
    long_enough = (n for n, ids in enumerate(held_out["input_ids"]) if len(ids) > 1)
    for _, n in zip(range(work.recipe.evaluate.samples), long_enough, strict=False):
        ids = held_out[n]["input_ids"]
        length = min(SAMPLE_BEGINNING, len(ids) // 2, work.recipe.corpus.sequence_length // 2)
        yield Beginning(n, ids[:length], ids[length : length + SAMPLE_TOKENS])


def _shown(work: Work, models: Models) -> list[CandidateModel]:
    return [one for each in loadable(work, models).values() for one in each if is_shown(work, one.candidate)]


def _own_tokenizer(work: Work, one: CandidateModel) -> Any | None:
    """The tokenizer of a model that reads other tokens than the run's."""
    return None if one.tokenizer is None or crossing_loss(work.recipe) is None else one.tokenizer()


def _continued(
    one: CandidateModel, begun: list[Beginning], tokenizer: Any, own: Any | None
) -> dict[str, dict[str, Any]]:
    """A model's text after each beginning, by the number of its document.

    Args:
        one: the model.
        begun: the beginnings.
        tokenizer: the run's tokenizer.
        own: the model's, where it is another one.
    """
    model = one.load()
    ids = {
        str(each.document): each.ids if own is None else token_ids(own, _text(tokenizer, each.ids)) for each in begun
    }
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or SAMPLE_TOKENS * 2
    room = positions - max(map(len, ids.values()))
    decoding = Decoding(max(1, min(SAMPLE_TOKENS, room)), batch_size=len(begun))
    asked = NamedModel(model, tokenizer if own is None else own, str(one.candidate))
    requests = [Request(name, given) for name, given in ids.items()]
    return {
        each.id: {"text": each.response, "cut": each.hit_limit}
        for batch in responses(asked, requests, decoding, key="evaluate.samples")
        for each in batch
    }


def _text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))
