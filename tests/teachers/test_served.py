from collections.abc import Iterator

import numpy as np
import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.data.prompts.collator import SampleCollator
from potstill.data.text_samples import TextReader
from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.recipe.teachers import ScoringTeacher
from potstill.servers.api import ScoredRow
from potstill.servers.connect import Server
from potstill.servers.model import meet
from potstill.teachers.live import LiveTeacher
from potstill.teachers.served import ROWS_BETWEEN_PROBES, SMALLEST_MASS, ServedTeacher, kept_row, rows_of
from servers.faulty_server import MODEL, Scripted, serving
from tiny import VOCABULARY, llama, tokenizer


@pytest.fixture(scope="module")
def one_server() -> Iterator[Scripted]:
    with serving(Scripted(llama(0), most_k=VOCABULARY)) as running:
        yield running


@pytest.fixture(scope="module")
def known(one_server):
    return meet(_server(one_server, top_k=8), tokenizer())


def collate(samples):
    return SampleCollator(0, TextReader(None, "text", None, None))(samples)


def _server(scripted: Scripted, **more) -> Server:
    return Server.of("big", ScoringTeacher(server=scripted.url, model=MODEL, api="vllm", **more))


def _teacher(scripted: Scripted, known, vocabulary=None, **more) -> ServedTeacher:
    return ServedTeacher(_server(scripted, **more), known, vocabulary)


BATCHES = {
    "plain": [{"input_ids": [5, 60, 7, 200, 9, 20]}, {"input_ids": [3, 4, 9, 8, 2, 1]}],
    "padded": [{"input_ids": [5, 60, 7, 200, 9, 20]}, {"input_ids": [3, 4]}],
    "prompts": [
        {"input_ids": [5, 60, 7, 200], "labels": [-100, -100, -100, 200]},
        {"input_ids": [3, 4, 9], "labels": [-100, 4, -100]},
    ],
    "documents": [{"input_ids": [5, 60, 7, 200, 9, 20], "documents": [2, 3, 1]}, {"input_ids": [3, 4]}],
    "one without labels": [{"input_ids": [5, 60], "labels": [-100, -100]}, {"input_ids": [3, 4, 9]}],
}


@pytest.mark.parametrize("samples", BATCHES.values(), ids=BATCHES)
def test_targets_are_the_models_own(one_server, known, samples):
    batch = collate(samples)
    found = _teacher(one_server, known, top_k=8).target(batch)
    live = LiveTeacher(llama(0)).target(batch)
    wanted = torch.nn.functional.linear(live.hidden, live.head.weight).log_softmax(-1)
    assert len(found) == len(wanted)
    used = found.log_probs > -torch.inf
    torch.testing.assert_close(found.log_probs[used], wanted.gather(1, found.ids)[used], rtol=0, atol=1e-5)
    assert (used.sum(-1) >= 8).all()
    labels = forward(llama(0), head_of(llama(0)), batch)[1]
    assert ((found.ids == labels[:, None]) & used).any(-1).all(), "each row's own token is told"
    whole = found.log_probs.double().exp().sum(-1) + found.log_tail.double().exp()
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-6)


def test_left_padding_changes_nothing(one_server, known):
    ids = torch.tensor([[0, 0, 5, 60, 7], [3, 4, 9, 8, 2]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORE_INDEX)}
    rows = [(row.ids, row.places) for row in rows_of(batch)]
    assert rows == [([5, 60, 7], [0, 1]), ([3, 4, 9, 8, 2], [0, 1, 2, 3])]


def test_nothing_after_the_last_label_is_sent():
    batch = collate([{"input_ids": [5, 60, 7, 200], "labels": [-100, 60, -100, -100]}])
    assert [(row.ids, row.places) for row in rows_of(batch)] == [([5, 60], [0])]


def test_a_batch_without_labels_asks_nothing(one_server, known):
    teacher = _teacher(one_server, known, top_k=8)
    before = len(one_server.asked)
    batch = collate([{"input_ids": [5, 60], "labels": [-100, -100]}])
    assert len(teacher.target(batch)) == 0
    assert len(one_server.asked) == before


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd"])
def test_with_all_tokens_told_the_loss_is_the_live_teachers(one_server, known, kind):
    batch, student = collate(BATCHES["padded"]), llama(3)
    head = head_of(student)
    states, labels = forward(student, head, batch)
    loss = [Loss(kind)]
    values = [
        distillation_loss(states.detach(), head, labels, target, loss, denominator=len(labels))
        for target in (
            _teacher(one_server, known, top_k=VOCABULARY).target(batch),
            LiveTeacher(llama(0)).target(batch),
        )
    ]
    first = [value[0] if isinstance(value, tuple) else value for value in values]
    torch.testing.assert_close(first[0], first[1], rtol=1e-4, atol=1e-5)


def test_batches_are_given_in_order_and_some_are_asked_ahead(one_server, known):
    teacher = _teacher(one_server, known, top_k=4)
    batches = [Collator(0)([{"input_ids": [5, 60 + n, 7]}]) for n in range(30)]
    taken = []

    def given():
        for batch in batches:
            taken.append(batch)
            yield batch

    found = list(teacher.targets(given()))
    for one, batch in zip(found, batches, strict=True):
        again = teacher.target(batch)
        assert torch.equal(one.ids, again.ids)
        assert torch.equal(one.log_tail, again.log_tail)


def test_targets_of_a_model_that_changed_are_not_given(one_server, known):
    teacher = _teacher(one_server, known, top_k=4)
    plain, got = one_server.model, []

    def batches():
        for number in range(90):
            if number == 70:
                one_server.model = llama(1)
            yield Collator(0)([{"input_ids": [5, 60, 7, 200, 9, 20, 3, 8, 1]}] * 2)

    try:
        with pytest.raises(UserError, match="has changed"):
            got.extend(len(target) for target in teacher.targets(batches()))
    finally:
        one_server.model = plain
    # Those of the last probe that was right were given.
    assert ROWS_BETWEEN_PROBES <= sum(got) <= 70 * 16


def test_a_sample_longer_than_the_server_reads_is_refused_before_it_is_sent(one_server, known):
    teacher = _teacher(one_server, known, top_k=4)
    before = len(one_server.asked)
    with pytest.raises(UserError, match=r"a sample has 128 tokens, and the server reads 127; .*--max-model-len"):
        teacher.target(Collator(0)([{"input_ids": [5] * 128}]))
    assert len(one_server.asked) == before


def test_layers_are_refused(one_server, known):
    with pytest.raises(UserError, match="a server shows none"):
        _teacher(one_server, known, top_k=4).read(Collator(0)([{"input_ids": [5, 6]}]), [1])


def scored(log_probs, labels, ids=None):
    log_probs = np.log(np.array(log_probs, float))
    ids = np.tile(np.arange(log_probs.shape[1]), (len(log_probs), 1)) if ids is None else np.array(ids)
    return ScoredRow(ids, log_probs, np.log(np.array(labels, float)))


def test_the_tail_is_what_is_left_and_nothing_is_renormalised():
    row = scored([[0.5, 0.2]], [0.1])
    kept = kept_row(row, np.array([7]), vocabulary=10)
    assert kept.ids.tolist() == [[0, 1, 7]]
    np.testing.assert_allclose(np.exp(kept.log_probs), [[0.5, 0.2, 0.1]])
    np.testing.assert_allclose(np.exp(kept.log_tail), [0.2])


def test_a_label_among_the_likeliest_is_not_counted_twice():
    kept = kept_row(scored([[0.5, 0.2]], [0.2]), np.array([1]), vocabulary=10)
    np.testing.assert_allclose(np.exp(kept.log_probs), [[0.5, 0.2, 0.0]])
    np.testing.assert_allclose(np.exp(kept.log_tail), [0.3])


def test_ids_beyond_the_shared_ones_are_part_of_the_tail():
    kept = kept_row(scored([[0.5, 0.2]], [0.1], ids=[[3, 12]]), np.array([7]), vocabulary=10)
    np.testing.assert_allclose(np.exp(kept.log_tail), [0.4])
    assert (kept.ids < 10).all()


@pytest.mark.parametrize("sum_of_all", [1.0, 1 + 1e-7, 1 - 1e-9])
def test_a_tail_below_the_servers_rounding_is_small_but_possible(sum_of_all):
    kept = kept_row(scored([[0.75, sum_of_all - 0.75]], [0.75]), np.array([0]), vocabulary=10)
    assert np.exp(kept.log_tail[0]) == pytest.approx(SMALLEST_MASS)


def test_there_is_no_tail_where_all_tokens_are_told():
    kept = kept_row(scored([[0.75, 0.25]], [0.75]), np.array([0]), vocabulary=2)
    assert kept.log_tail[0] == -np.inf
