"""Steps: one for each seed, student and sample set, each with a folder of its own."""

import json
from pathlib import Path

import minimal
from potstill.pipeline.graph import BY_NAME, all_steps, steps_of

HOSTILE = (
    "held-out",
    "held_out",
    "own",
    "another_question",
    "train",
    "seed-0",
    "student",
    "start",
    "base-of-another-question",
)
"""Names of strategies and experiments that are, or were, words of potstill's own in the run folder."""


def test_no_two_steps_share_a_folder_and_none_lies_in_another_whatever_names_a_user_chooses(tmp_path):
    asked = {name: {"teacher": {"user": "{{ question }}"}} for name in HOSTILE}
    experiments = {name: {} for name in HOSTILE}
    experiments |= {f"placebo-{name}": {"strategy": name, "targets": "another_question"} for name in HOSTILE}
    overrides = [f"strategies={json.dumps(asked)}", f"experiments={json.dumps(experiments)}"]
    for by in ("base", *HOSTILE):
        folders = [
            Path(str(step)) for step in all_steps(minimal.questions(tmp_path, *overrides, f"answers.strategy={by}"))
        ]
        assert len(set(folders)) == len(folders)
        assert not [folder for folder in folders if set(folder.parents) & set(folders)]


def test_what_trains_is_a_step_for_each_seed(tmp_path):
    recipe = minimal.recipe(tmp_path, "seeds=[3, 1]")
    for name in ("distil", "control"):
        assert [str(step) for step in steps_of(recipe, BY_NAME[name])] == [f"{name}/seed-3", f"{name}/seed-1"]
    assert [str(step) for step in steps_of(recipe, BY_NAME["student"])] == ["student"]
