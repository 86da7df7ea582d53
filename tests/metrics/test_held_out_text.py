import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import count_supervised_by_row
from potstill.metrics.bootstrap import bootstrap
from potstill.metrics.conversations.turn_scores import TurnScores
from potstill.metrics.held_out_text import (
    DocumentScores,
    SideBySide,
    TaughtScores,
    document_windows,
    log_probs,
    outputs_of,
)
from potstill.metrics.taught_parts import PartScores, TaughtParts
from potstill.teachers.live import LiveTeacher
from tiny import SEQUENCE_LENGTH, VOCABULARY, gpt2, llama

DOCUMENTS = [list(range(5, 5 + length)) for length in (40, 3, 1, 100, 32, 33)]


def _side_by_side(teachers, models, size, weights=(1.0,), mix="probabilities"):
    """The scores of all models, by name; teachers are called teacher0, teacher1 and so on."""
    windows = document_windows(DOCUMENTS, SEQUENCE_LENGTH)
    readers = SideBySide(
        {f"teacher{n}": LiveTeacher(teacher).target for n, teacher in enumerate(teachers)},
        weights,
        mix,
        {name: outputs_of(model) for name, model in models.items()},
    )
    sums = {}
    for at in range(0, len(windows), size):
        rows = windows[at : at + size]
        batch = Collator(0)([{"input_ids": row.input_ids} for row in rows])
        document = np.repeat([row.document for row in rows], count_supervised_by_row(batch).numpy())
        found = readers.read(batch)
        assert found.seconds.keys() == found.scores.keys()
        for name, scores in found.scores.items():
            sums.setdefault(name, DocumentScores.zeros([2 * len(document) for document in DOCUMENTS]))
            sums[name].add(document, scores)
    return sums


def _scores(model, teacher, size):
    return _side_by_side([teacher], {"model": model}, size)["model"]


@pytest.mark.parametrize("size", [2, 100])
def test_how_windows_are_batched_changes_nothing(size):
    one, other = (_scores(llama(1), llama(0), each) for each in (1, size))
    for name in ("nll", "kl", "agreement", "tokens", "bytes"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
def test_models_side_by_side_have_the_scores_that_they_have_alone(mix):
    teachers, weights, models = [llama(0), llama(3)], (0.25, 0.75), {"a": llama(1), "b": gpt2(0)}
    together = _side_by_side(teachers, models, 4, weights, mix)
    assert list(together) == ["teacher0", "teacher1", "a", "b"]
    alone = {name: _side_by_side(teachers, {name: model}, 4, weights, mix)[name] for name, model in models.items()}
    alone |= {
        f"teacher{n}": _side_by_side(teachers, {"own": one}, 4, weights, mix)["own"] for n, one in enumerate(teachers)
    }
    for model, expected in alone.items():
        for name in ("nll", "kl", "agreement", "tokens", "bytes"):
            np.testing.assert_allclose(getattr(together[model], name), getattr(expected, name), rtol=1e-6, atol=1e-6)


def test_each_model_reads_each_batch_once():
    teacher, student = llama(0), llama(1)
    calls = {"teacher": 0, "student": 0}
    for name, model in (("teacher", teacher), ("student", student)):
        model.get_decoder().register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    windows = len(document_windows(DOCUMENTS, SEQUENCE_LENGTH))
    readers = SideBySide(
        {"teacher": LiveTeacher(teacher).target}, (1.0,), "probabilities", {"student": outputs_of(student)}
    )
    calls.update(teacher=0, student=0)
    for window in document_windows(DOCUMENTS, SEQUENCE_LENGTH):
        readers.read(Collator(0)([{"input_ids": window.input_ids}]))
    assert calls == {"teacher": windows, "student": windows}


def test_log_probabilities_are_those_of_the_model():
    model, ids = llama(1), DOCUMENTS[4]
    found = log_probs(outputs_of(model)(Collator(0)([{"input_ids": ids}])), 200)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, :-1, :200].log_softmax(-1)
    torch.testing.assert_close(found, expected)


def test_every_token_but_a_document_s_first_is_predicted_once():
    scores = _scores(llama(1), llama(0), 4)
    assert scores.tokens.tolist() == [len(document) - 1 for document in DOCUMENTS]


def test_a_model_is_at_no_distance_from_itself():
    scores = _scores(llama(0), llama(0), 4)
    assert np.abs(scores.kl).max() < 1e-3
    assert scores.agreement.tolist() == scores.tokens.tolist()


def test_a_model_that_knows_nothing_needs_the_log_of_the_vocabulary():
    flat = gpt2(0)
    with torch.no_grad():
        flat.lm_head.weight.zero_()
    scores = _scores(flat, llama(0), 4)
    loss = scores.sums("loss")
    assert loss.numerator.sum() / loss.denominator.sum() == pytest.approx(np.log(VOCABULARY), rel=1e-6)
    bits = scores.sums("bits_per_byte")
    assert bits.numerator.sum() == pytest.approx(scores.tokens.sum() * np.log2(VOCABULARY), rel=1e-6)
    assert bits.denominator.sum() == sum(2 * len(document) for document in DOCUMENTS)


@pytest.mark.parametrize("of", ["documents", "taught documents", "turns", "parts"])
def test_no_distance_on_any_unit_is_no_share_of_units(of):
    none, tokens = np.zeros(8), np.full(8, 5.0)
    each, taught = DocumentScores(tokens, none, tokens, tokens, tokens), np.arange(8) < 6
    scores = {
        "documents": each,
        "taught documents": TaughtScores(replace(each, agreement=tokens * taught), taught),
        "turns": TurnScores(each),
        "parts": PartScores(each, TaughtParts([("t",)] * 8, ["t"])),
    }[of]
    found = {name: bootstrap("m", name, scores.sums(name)) for name in ("kl_to_teacher", "agreement")}
    assert (found["kl_to_teacher"].low, found["kl_to_teacher"].high) == (0, 0)
    assert found["agreement"].low < found["agreement"].high == 1


def test_scores_survive_json():
    scores = _scores(llama(1), llama(0), 4)
    again = DocumentScores.from_dict(json.loads(json.dumps(scores.to_dict())))
    for name in ("nll", "kl", "agreement", "tokens", "bytes"):
        assert np.array_equal(getattr(again, name), getattr(scores, name))
