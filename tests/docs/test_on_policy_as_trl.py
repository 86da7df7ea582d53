"""Written samples teach what TRL's GKDTrainer learns from the same samples."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import log_softmax

from potstill import Loss, OnPolicy
from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX
from tiny import llama, tokenizer
from toy_training import arguments, samples, trainer, weights

LEARNING_RATE = 0.5
AS_OURS = {0.0: Loss("forward_kl"), 0.3: Loss("jsd", beta=0.3), 0.5: Loss("jsd", beta=0.5), 1.0: Loss("reverse_kl")}
"""TRL's `beta`, and the loss of the same formula."""


def student():
    return llama(seed=1, layers=2)


def teacher():
    return llama(initializer_range=0.1)


@pytest.fixture(scope="module", params=AS_OURS, ids=lambda beta: f"beta={beta}")
def learned(request, tmp_path_factory):
    """TRL's `beta`; what was written; the loss and the gradient of the step that learned it."""
    one = trainer(
        tmp_path_factory.mktemp("ours"),
        student(),
        teacher=teacher(),
        losses=[AS_OURS[request.param]],
        train_dataset=samples(8),
        processing_class=tokenizer(),
        on_policy=OnPolicy(share=1, max_new_tokens=6, preflight="off"),
        learning_rate=LEARNING_RATE,
        max_steps=1,
    )
    one.train()
    (entry,) = (entry for entry in one.state.log_history if "loss" in entry)
    return request.param, one.on_policy.rollouts, entry["loss"], gradient(one.model)


def gradient(model):
    """Of the one step of plain SGD that made these weights from the student's."""
    before, after = weights(student()), weights(model)
    return torch.cat([((before[name] - after[name]) / LEARNING_RATE).flatten() for name in before])


def generalized_jsd(teacher, student, beta):
    """Equation 1 of arXiv:2306.13649, [N, V] logits to [N]; at its ends, the KL divergences that TRL puts there."""
    p, q = log_softmax(teacher, -1), log_softmax(student, -1)
    if beta in (0, 1):
        one, other = (p, q) if beta == 0 else (q, p)
        return (one.exp() * (one - other)).sum(-1)
    mixture = (beta * p.exp() + (1 - beta) * q.exp()).log()
    return beta * (p.exp() * (p - mixture)).sum(-1) + (1 - beta) * (q.exp() * (q - mixture)).sum(-1)


def test_loss_and_gradient_are_those_of_the_formula(learned):
    beta, rollouts, loss, found = learned
    ours, theirs = student().double(), teacher().double()
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for one in rollouts:
        ids, count = torch.tensor([one.prompt.student + one.ids]), len(one.ids)
        with torch.no_grad():
            target = theirs(input_ids=ids).logits[0, -count - 1 : -1]
        total = total + generalized_jsd(target, ours(input_ids=ids).logits[0, -count - 1 : -1], beta).sum()
        tokens += count
    (total / tokens).backward()
    assert loss == pytest.approx((total / tokens).item(), rel=1e-5)
    expected = torch.cat([weight.grad.flatten() for weight in dict(ours.named_parameters()).values()]).float()
    assert expected.norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_trl_learns_the_same_from_the_same_samples(learned, tmp_path):
    gkd = pytest.importorskip("trl.experimental.gkd", reason="trl is not installed")
    beta, rollouts, loss, found = learned
    rows = [
        {"input_ids": one.prompt.student + one.ids, "labels": [IGNORE_INDEX] * len(one.prompt.student) + one.ids}
        for one in rollouts
    ]
    given = arguments(tmp_path, learning_rate=LEARNING_RATE, max_steps=1).to_dict()
    fields = {name: given[name] for name in GIVEN}
    theirs = gkd.GKDTrainer(
        model=student(),
        teacher_model=teacher(),
        args=gkd.GKDConfig(output_dir=str(tmp_path), lmbda=0.0, beta=beta, bf16=False, **fields),
        data_collator=Collator(0),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
    )
    theirs.train()
    (entry,) = (entry for entry in theirs.state.log_history if "loss" in entry)
    assert loss == pytest.approx(entry["loss"], rel=1e-4)
    torch.testing.assert_close(found, gradient(theirs.model), rtol=1e-3, atol=1e-6)


GIVEN = (
    "optim",
    "learning_rate",
    "max_grad_norm",
    "lr_scheduler_type",
    "train_sampling_strategy",
    "max_steps",
    "per_device_train_batch_size",
    "logging_steps",
    "save_strategy",
    "report_to",
    "disable_tqdm",
    "use_cpu",
    "dataloader_pin_memory",
)
"""Arguments that both trainings share."""
