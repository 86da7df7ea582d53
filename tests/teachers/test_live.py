import pytest
import torch

from potstill.teachers.live import LiveTeacher
from potstill.teachers.target import HiddenTarget
from potstill.text.batching import Collator
from potstill.words import IGNORE_INDEX
from tiny import gpt2, llama
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
