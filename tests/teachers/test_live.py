import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from potstill.losses.teacher_target import HiddenTarget
from potstill.teachers.live import LiveTeacher
from tiny import VOCABULARY, gpt2, llama, padded
from toy_training import samples


@pytest.mark.parametrize("model", [llama(0), gpt2(0)], ids=["llama", "gpt2"])
def test_rows_are_the_supervised_tokens_of_the_batch(model):
    rows = samples(6)
    target = LiveTeacher(model).target(Collator(0)(rows))
    assert isinstance(target, HiddenTarget)
    wanted = []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        wanted.append(logits[torch.tensor(row["labels"])[1:] != IGNORE_INDEX])
    found = target.hidden @ target.head.weight.T
    torch.testing.assert_close(found, torch.cat(wanted), rtol=0, atol=1e-4)
    assert not found.requires_grad


@pytest.mark.parametrize("readable", [True, False])
def test_a_teacher_may_speak_of_its_tokens_alone(readable, monkeypatch):
    if not readable:
        monkeypatch.setattr("potstill.teachers.live.head_of", lambda model: None)
    batch = Collator(0)(samples(6))
    plain, wide = LiveTeacher(llama(0)).target(batch), LiveTeacher(padded(llama(0), 320), VOCABULARY).target(batch)
    if readable:
        assert torch.equal(wide.hidden, plain.hidden)
        assert torch.equal(wide.head.weight, plain.head.weight)
    else:
        torch.testing.assert_close(wide.logits, plain.logits)


def test_layers_are_read_in_the_same_forward():
    model, batch = llama(0), Collator(0)(samples(3))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    teacher = LiveTeacher(model)
    calls.clear()
    target, layers = teacher.read(batch, {1, 3})
    assert len(calls) == 1
    assert set(layers) == {1, 3}
    assert torch.equal(layers[3], target.hidden), "the last layer's states are those that go into the head"
    assert layers[1].shape == target.hidden.shape
    assert not torch.equal(layers[1], layers[3])
