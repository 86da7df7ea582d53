"""A training whose written samples go astray ends with the weights from before."""

from dataclasses import replace

from transformers import TrainerCallback

from potstill.data.labels import IGNORE_INDEX
from potstill.on_policy.guard import Guard
from potstill.on_policy.rollouts import RolloutWriter
from toy_rollouts import made, on_policy, still
from toy_training import assert_equal, weights


class _Remember(TrainerCallback):
    def __init__(self, one):
        self.one, self.weights = one, {}

    def on_step_end(self, args, state, control, **kwargs):
        self.weights[state.global_step] = weights(self.one.model)


def test_a_training_whose_answers_collapse_ends_with_the_weights_from_before(tmp_path, monkeypatch):
    write = RolloutWriter.write

    def shrinking(self, asked, step):
        found = write(self, asked, step)
        return {key: replace(one, ids=one.ids[: 1 if step >= 12 else None]) for key, one in found.items()}

    monkeypatch.setattr(RolloutWriter, "write", shrinking)
    answer = [7, 8, 9, 10, 11, 0]
    rows = [{"input_ids": [5, 6 + at, *answer], "labels": [IGNORE_INDEX] * 2 + answer} for at in range(16)]
    settings = on_policy(share=1, max_new_tokens=12)
    saving = {"save_total_limit": 1, "save_strategy": "steps", "save_steps": 5}
    one = made(tmp_path, still(), train_dataset=rows, on_policy=settings, max_steps=60, learning_rate=1e-4, **saving)
    one.on_policy.guard = Guard(patience=8)
    remember = _Remember(one)
    one.add_callback(remember)
    one.train()
    assert one.state.global_step < 50
    assert "length of the written answers" in one.rollout_watch.ended
    assert one.state.best_global_step == one.state.global_step - 7
    assert_equal(weights(one.model), remember.weights[one.state.best_global_step])
