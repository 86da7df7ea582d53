"""The losses of written samples, and the settings that they may have."""

import pytest
import torch

from potstill import Loss
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from tiny import llama
from toy_rollouts import logged, made, on_policy, still
from toy_training import weights


def test_the_policy_gradient_is_an_estimate_of_reverse_kl(tmp_path):
    """On many answers, both gradients point the same way. (What it is exactly, the tests of the loss prove.)"""
    many = {"samples": 64, "max_new_tokens": 2}
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORE_INDEX, IGNORE_INDEX, 7]}] * 512
    found = []
    for name in ("reverse_kl", "policy_gradient"):
        one = made(
            tmp_path / name,
            still(),
            train_dataset=rows,
            per_device_train_batch_size=512,
            on_policy=on_policy(share=1, losses=[{"kind": name}], **many),
            max_steps=1,
        )
        before = weights(one.model)
        one.train()
        after = weights(one.model)
        found.append(torch.cat([(after[key] - before[key]).flatten() for key in before]))
    assert torch.cosine_similarity(*found, dim=0) > 0.5


def test_reused_samples_remember_how_likely_they_were(tmp_path):
    settings = on_policy(share=1, refresh_every=2, losses=[{"kind": "policy_gradient"}])
    one = made(tmp_path / "a", still(), on_policy=settings, max_steps=4)
    one.train()
    ratio = logged(one, "on_policy/clipped", "on_policy/reverse_kl_estimate")
    # New samples are those of the student as it is, so none is clipped.
    assert ratio[0]["on_policy/clipped"] == ratio[2]["on_policy/clipped"] == 0
    assert all(
        kept.log_probs is not None and len(kept.log_probs) == len(kept.ids) for kept in one.on_policy.batches.kept
    )


def test_written_samples_may_have_losses_of_their_own(tmp_path):
    settings = on_policy(share=0.5, losses=[{"kind": "jsd", "beta": 0.9}, {"kind": "policy_gradient", "weight": 0.1}])
    one = made(tmp_path, losses=(Loss("cross_entropy"),), on_policy=settings)
    one.train()
    names = {name for entry in one.state.log_history for name in entry}
    assert {"cross_entropy", "on_policy/jsd", "on_policy/policy_gradient"} <= names
    assert "on_policy/cross_entropy" not in names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"on_policy": on_policy(max_new_tokens=128)},
            "`on_policy.max_new_tokens` is 128, and the student has only 128",
        ),
        (
            {"on_policy": on_policy(), "losses": (Loss("cross_entropy"),), "teacher": None},
            "written samples have no loss",
        ),
        ({"on_policy": on_policy(), "processing_class": None}, "needs the tokenizer"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        made(tmp_path, **given)


def test_settings_may_be_a_dictionary_and_mistakes_are_named(tmp_path):
    assert made(tmp_path, on_policy={"share": 0.5, "max_new_tokens": 4}).on_policy.settings.share == 0.5
    with pytest.raises(UserError, match="`on_policy`: `lmbda`: unknown key"):
        made(tmp_path, on_policy={"lmbda": 0.5})
    with pytest.raises(UserError, match="`on_policy` has the type bool"):
        made(tmp_path, on_policy=True)
    with pytest.raises(UserError, match="`rollout_teacher` has 2 teachers, and `teacher` has 1"):
        made(tmp_path, on_policy=on_policy(), rollout_teacher=[llama(), llama(seed=3)])
