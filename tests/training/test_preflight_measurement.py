"""Before a student learns from what it writes, it is measured whether it can."""

import copy
import json

import pytest
import torch

from potstill.errors import UserError
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import RolloutWriter
from tiny import llama, tokenizer
from toy_rollouts import made, on_policy
from toy_training import assert_equal, samples, weights


def test_a_teacher_that_is_strange_is_refused_before_anything_is_learned(tmp_path, capsys):
    one = made(tmp_path / "a", train_dataset=samples(40), on_policy=on_policy(preflight="refuse"))
    before = weights(one.model)
    with pytest.raises(UserError, match=r"`on_policy.from_step`.*`--force distil`"):
        one.train()
    assert_equal(weights(one.model), before)
    found = json.loads((tmp_path / "a" / "preflight.json").read_text())
    assert found["verdict"] != "go"
    assert found["sentence"] in capsys.readouterr().out
    going_on = made(tmp_path / "b", train_dataset=samples(40), on_policy=on_policy(preflight="warn"))
    going_on.train()
    unmeasured = made(tmp_path / "c", train_dataset=samples(40), on_policy=on_policy(preflight="off"))
    unmeasured.train()
    # Measuring changes nothing.
    assert_equal(weights(going_on.model), weights(unmeasured.model))


def test_a_student_that_its_teacher_is_ahead_of_may_learn(tmp_path):
    teacher = llama()
    student = copy.deepcopy(teacher)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            weight += 0.01 * torch.randn_like(weight)
    asked = {(str(at), 0): SamplePrompt([5 + at, 6, 7]) for at in range(80)}
    answers = RolloutWriter(teacher, tokenizer(), on_policy(max_new_tokens=24), 0, None).write(asked, 0)
    rows = [one.sample() for one in answers.values()]
    settings = on_policy(preflight="warn", max_new_tokens=24, losses=[{"kind": "reverse_kl"}])
    one = made(tmp_path, student, teacher=teacher, train_dataset=rows, on_policy=settings, max_steps=1)
    one.train()
    found = json.loads((tmp_path / "preflight.json").read_text())
    assert found["kl"]["high"] < 0.19
    assert found["advantage"]["low"] > 0
    assert found["prompts"] == 64
    assert found["overlap"]["value"] > 0.5
