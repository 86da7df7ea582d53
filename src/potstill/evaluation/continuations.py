"""Continuations: every model completes beginnings of text; the responses are compared with keywords and references.

The metrics are those of DistilLLaMA (keyword match, ROUGE-L, cosine of averaged word vectors) and the cosine of
sentence embeddings. Makes `continuations/SET/` (each model's responses) and `continuations/SET.json`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from potstill.console import progress
from potstill.evaluation.candidate_models import CandidateModel, Measurement, Models, pairs_to_compare
from potstill.evaluation.measurement_cost import metered
from potstill.evaluation.selection_split import Split, split_of, splits_of
from potstill.files.atomic import write_json
from potstill.files.jsonl_log import JsonlLog
from potstill.generation.decoding import Decoding, Request
from potstill.generation.generate import NamedModel, Response, responses
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.continuations.keywords import alternatives, contains
from potstill.metrics.continuations.read import Continuation, read_continuations
from potstill.metrics.continuations.similarity import (
    RANDOM,
    SentenceEncoder,
    Similarity,
    check_rouge,
    check_sentences,
    cosine,
    derangements,
    rouge_l,
    sentence_encoder,
    sentence_model,
    with_random_pairs,
)
from potstill.metrics.continuations.word_vectors import WordVectors, check_vectors, read_vectors, vectors_file, words_of
from potstill.metrics.intervals import Array
from potstill.metrics.minimal_pairs.score import Reading
from potstill.pipeline import artifacts
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.continuations import ContinuationFile, ContinuationSet

AnyContinuations = ContinuationSet | ContinuationFile


def check(recipe: Recipe) -> None:
    """Refuse missing prompts, word vectors and sentence models, before any step runs.

    Raises:
        UserError: naming the key, and what to install or to leave out.
    """
    for name, given in recipe.evaluate.continuations.items():
        key = f"evaluate.continuations.{name}"
        check_rouge(key)
        read_continuations(given, key)
        if given.words is not None:
            check_vectors(vectors_file(given.words, f"{key}.words"), f"{key}.words.path")
        if given.sentences is not None:
            check_sentences(f"{key}.sentences")
            sentence_model(given.sentences, f"{key}.sentences")


def measure(work: Work, models: Models, name: str) -> Measurement:
    """Measure every model on one set of continuations, by its name in the recipe."""
    given, how, key = work.recipe.evaluate.continuations[name], work.recipe.evaluate, f"evaluate.continuations.{name}"
    continuations = continuations_in_split(work, name)
    said = {
        one.label: [complete_prompts(work, name, continuations, seed) for seed in each] for one, each in models.items()
    }
    scorer = ResponseScorer(
        given, key, continuations, [text for each in said.values() for texts in each for text in texts]
    )
    scores = {model: [scorer.scores_with_random_pairs(texts) for texts in each] for model, each in said.items()}
    resampling = Resampling(how.confidence, how.resamples)
    metrics = list(scores["start"][0])
    rows = [
        bootstrap(model, f"{name}/{metric}", _sums(scores[model], metric), resampling=resampling)
        for metric in metrics
        for model in scores
    ]
    pairs = [
        paired(
            (student, other),
            f"{name}/{metric}",
            (_sums(scores[student], metric), _sums(scores[other], metric)),
            resampling=resampling,
        )
        for metric in metrics
        if not metric.endswith(RANDOM)
        for student, other in pairs_to_compare(work, models)
    ]
    file = work.folder / "continuations" / f"{name}.json"
    write_json(file, {"continuations": len(continuations), **scorer.about, **_details(scores, name, resampling)})
    return Measurement(rows, pairs, outputs=[file, file.with_suffix("")])


def continuations_in_split(work: Work, name: str, split: Split = "reporting") -> list[Continuation]:
    """The prompts of a split. All prompts are reported, unless the recipe selects snapshots by them."""
    every = read_continuations(work.recipe.evaluate.continuations[name], f"evaluate.continuations.{name}")
    if len(splits_of(work.recipe, name)) == 1:
        return every
    return [one for one in every if split_of(f"{name}/{one.id}") == split]


def prompt_requests(given: AnyContinuations, continuations: Sequence[Continuation], tokenizer: Any) -> list[Request]:
    """The prompts as a model's token ids."""
    reading = Reading.of(tokenizer, given.start, prefix_space=False)
    each = reading.encode(tokenizer, [one.prompt for one in continuations])
    return [Request(one.id, list(ids)) for one, ids in zip(continuations, each, strict=True)]


def complete_prompts(work: Work, name: str, continuations: Sequence[Continuation], model: CandidateModel) -> list[str]:
    """The response of a model to each prompt, in order. Responses from before a stop are not written again."""
    given = work.recipe.evaluate.continuations[name]
    tokenizer = artifacts.tokenizer(work) if model.tokenizer is None else model.tokenizer()
    requests = prompt_requests(given, continuations, tokenizer)
    file = work.folder / "continuations" / name / f"{model.candidate.folder}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    log = JsonlLog(file)
    if len(log.rows) < len(requests):
        asked = NamedModel(model.load(), tokenizer, str(model.candidate))
        decoding = Decoding(given.max_new_tokens, work.recipe.evaluate.batch_size)
        with metered(work, f"continuations-{name}", model) as tally:
            try:
                _write_responses(asked, requests, decoding, log, name)
            finally:
                lengths = {one.id: len(one.prompt_ids) for one in requests}
                tally.read = sum(lengths[row["id"]] for row in log.rows)
                # The model also writes the end token, which is no part of the response.
                tally.written = sum(row["tokens"] + (not row["hit_limit"]) for row in log.rows)
    written = {row["id"]: row["response"] for row in log.rows}
    return [written[one.id] for one in continuations]


def _write_responses(asked: NamedModel, requests: list[Request], decoding: Decoding, log: JsonlLog, name: str) -> None:
    done, key = [(row["id"], 0) for row in log.rows], f"evaluate.continuations.{name}.max_new_tokens"
    with progress(f"{name}: {asked.name}", len(requests), "continuations", len(done)) as advance:
        for batch in responses(asked, requests, decoding, done, key=key):
            log.append(_row(one) for one in batch)
            advance(len(batch))


def _row(one: Response) -> dict[str, Any]:
    return {"id": one.id, "response": one.response, "tokens": one.tokens, "hit_limit": one.hit_limit}


class ResponseScorer:
    """Scores responses by each metric, and random pairs of responses and references too.

    Args:
        given: the set's section of the recipe.
        key: the key of this section.
        continuations: the prompts, with their keywords and references.
        texts: all responses of all models, so that only the word vectors of their words are read, and only once.
    """

    def __init__(
        self, given: AnyContinuations, key: str, continuations: Sequence[Continuation], texts: Sequence[str]
    ) -> None:
        self._given, self._continuations = given, continuations
        self._references = [one.reference for one in continuations]
        self._others = derangements(len(continuations), given.random_pairs)
        self._vectors: WordVectors | None = None
        self._encode: SentenceEncoder | None = None
        self.about: dict[str, Any] = {"random_pairs": given.random_pairs}
        """How the metrics were computed, for readers of the results."""
        if given.words is not None:
            every = [*self._references, *texts]
            file = vectors_file(given.words, f"{key}.words")
            self._vectors = read_vectors(file, words_of(every), f"{key}.words.path")
            self.about["words"] = {"file": file.name, "dimension": self._vectors.dimension}
            self.about["words"]["share_of_words_with_a_vector"] = self._vectors.coverage(every)
        if given.sentences is not None:
            self._encode = sentence_encoder(given.sentences, f"{key}.sentences")
            self.about["sentences"] = getattr(given.sentences, "package", None) or sentence_model(
                given.sentences, f"{key}.sentences"
            )

    def scores_with_random_pairs(self, texts: Sequence[str]) -> dict[str, Array]:
        """Every metric of one model's responses and of its random pairs, in the order of the U prompts: [U] each."""
        found: dict[str, Array] = {}
        for name, score in self._functions(texts).items():
            found[name], found[f"{name}_{RANDOM}"] = with_random_pairs(score, self._others)
        return found

    def scores(self, texts: Sequence[str]) -> dict[str, Array]:
        """The same without random pairs, which take far longer: [U] each."""
        each = np.arange(len(texts))
        return {name: score(each, each) for name, score in self._functions(texts).items()}

    def _functions(self, texts: Sequence[str]) -> Mapping[str, Similarity]:
        scores = {"em": self._keyword_match(texts)}
        scores |= {f"rouge_l_{name}": score for name, score in rouge_l(texts, self._references).items()}
        if self._vectors is not None:
            scores["word_cosine"] = cosine(self._vectors.average(texts), self._vectors.average(self._references))
        if self._encode is not None:
            scores["sentence_cosine"] = cosine(self._encode(texts), self._encoded_references)
        return scores

    @cached_property
    def _encoded_references(self) -> Array:
        """The same for all models."""
        assert self._encode is not None
        return self._encode(self._references)

    def _keyword_match(self, texts: Sequence[str]) -> Similarity:
        keywords, how = [alternatives(one.keyword) for one in self._continuations], self._given.keyword
        return lambda rows, columns: np.array(
            [
                contains(texts[row], keywords[column], match=how.match, case=how.case)
                for row, column in zip(rows, columns, strict=True)
            ],
            float,
        )


def _sums(seeds: Sequence[Mapping[str, Array]], metric: str) -> Sums:
    each = [scores[metric] for scores in seeds]
    return Sums(each[0] if len(each) == 1 else np.stack(each), np.ones(len(each[0])))


def _details(scores: Mapping[str, list[dict[str, Array]]], name: str, resampling: Resampling) -> dict[str, Any]:
    """The differences of each model's metrics from its random pairs, and each seed's scores of each prompt."""
    above = [
        paired(
            (model, "random pairs"),
            f"{name}/{metric}",
            (_sums(seeds, metric), _sums(seeds, f"{metric}_{RANDOM}")),
            resampling=resampling,
        )
        for model, seeds in scores.items()
        for metric in seeds[0]
        if not metric.endswith(RANDOM)
    ]
    each = {
        model: [{metric: values.tolist() for metric, values in seed.items()} for seed in seeds]
        for model, seeds in scores.items()
    }
    return {"above_random_pairs": [pair.to_dict() for pair in above], "scores": each}
