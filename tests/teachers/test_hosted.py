"""A hosted teacher is the live teacher: the same targets, losses and gradients, over the network."""

import pytest
import torch

from families import of
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models.forward import forward
from potstill.models.head_extraction import head_of
from potstill.servers.client import Client, Connection
from potstill.servers.potstill import PotstillApi
from potstill.servers.potstill import head_of as head_of_server
from potstill.teachers.hosted import HostedTeacher, in_requests
from potstill.teachers.live import LiveTeacher
from potstill.teachers.serving.server import application
from tiny import gpt2, llama
from toy_server import served, serving
from toy_training import packed_rows, samples

MODELS = {
    "llama": llama,
    "gpt2": gpt2,
    "phi, with a bias": of("PhiConfig"),
    "gemma2, with a soft cap": of("Gemma2Config", head_dim=8, final_logit_softcapping=0.5),
}
CPU = torch.device("cpu")


def hosted(url, model, vocabulary=None):
    api = PotstillApi(Client(Connection("big", url), pause=lambda _: None))
    teacher = model.facts.teacher
    return HostedTeacher(api, teacher, head_of_server(model.head, teacher, CPU), vocabulary)


def loss_and_gradient(target, student, batch):
    student.zero_grad()
    head = head_of(student)
    hidden, labels = forward(student, head, batch)
    losses = [Loss("forward_kl", 0.4, 2.0), Loss("reverse_kl", 0.3), Loss("jsd", 0.3, beta=0.3)]
    loss, _ = distillation_loss(hidden, head, labels, target, losses, denominator=len(labels))
    loss.backward()
    return loss.detach(), [one.grad.clone() for one in student.parameters() if one.grad is not None]


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradient_are_the_live_teachers_bit_for_bit(name, tmp_path):
    teacher, student, batch = MODELS[name](), llama(3), Collator(0)(samples(6))
    model = served(teacher, tmp_path)
    live = LiveTeacher(teacher)
    with serving(application(model, None)) as url:
        found = hosted(url, model).target(batch)
    assert torch.equal(found.hidden, live.target(batch).hidden)
    expected, gradients = loss_and_gradient(live.target(batch), student, batch)
    loss, own = loss_and_gradient(found, student, batch)
    assert torch.equal(loss, expected)
    assert all(torch.equal(one, other) for one, other in zip(own, gradients, strict=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served(llama(0), tmp_path_factory.mktemp("served"), batch_tokens=128)


@pytest.fixture(scope="module")
def url(model):
    with serving(application(model, None)) as found:
        yield found


def test_a_batch_that_is_larger_than_a_request_is_asked_in_parts(url, model):
    batch = Collator(0)(samples(20))
    found, live = hosted(url, model).target(batch), model.live.target(batch)
    torch.testing.assert_close(found.hidden, live.hidden, rtol=0, atol=1e-5)


def test_many_batches_come_in_their_order(url, model):
    batches = [Collator(0)(samples(count, seed=count)) for count in (3, 30, 1, 8)]
    # All first: the server and this thread cannot read with one model at a time.
    targets = list(hosted(url, model).targets(batches))
    for found, batch in zip(targets, batches, strict=True):
        torch.testing.assert_close(found.hidden, model.live.target(batch).hidden, rtol=0, atol=1e-5)


def test_documents_and_pads_on_the_left_are_read_as_the_live_teacher_reads_them(url, model):
    packed, _ = packed_rows([row["input_ids"] for row in samples(6)])
    right = Collator(0)(samples(4))
    lengths = right["attention_mask"].sum(1)
    left = {
        name: torch.stack([row.roll(len(row) - n) for row, n in zip(value, lengths.tolist(), strict=True)])
        for name, value in right.items()
    }
    for batch in (Collator(0)(packed), left):
        found, live = hosted(url, model).target(batch), model.live.target(batch)
        torch.testing.assert_close(found.hidden, live.hidden, rtol=0, atol=1e-5)


def test_a_batch_in_which_nothing_is_learned_has_no_targets(url, model):
    batch = Collator(0)(samples(2))
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    assert hosted(url, model).target(batch).hidden.shape == (0, 32)


def test_its_targets_may_cover_fewer_ids(url, model):
    assert hosted(url, model, 290).target(Collator(0)(samples(2))).head.weight.shape == (290, 32)


def test_what_it_cannot_give_is_refused(url, model):
    teacher, batch = hosted(url, model), Collator(0)([{"input_ids": [2] * 129}])
    with pytest.raises(UserError, match=r"`teachers.big.server`: a sample has 129 tokens, and the teacher reads 128"):
        teacher.target(batch)
    with pytest.raises(UserError, match="hidden_match needs the teacher's layers"):
        teacher.read(batch, {1})


@pytest.mark.parametrize(
    ("lengths", "requests"),
    [
        ([10], [[0]]),
        ([30, 5, 20], [[0, 1, 2]]),
        ([50, 5, 40, 6], [[0, 2], [3, 1]]),
        ([100, 100, 1], [[0], [1], [2]]),
        ([90, 1], [[0], [1]]),
    ],
)
def test_rows_of_like_lengths_share_a_request(lengths, requests):
    assert in_requests(lengths, 100) == requests
