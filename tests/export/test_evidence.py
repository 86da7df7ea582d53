"""Evidence: what `report/comparison.json` holds."""

import json

from potstill.metrics.results import Paired
from potstill.report.data import Metric
from potstill.report.significance import judge


def test_it_is_plain_json_and_whole(facts_of):
    facts = facts_of(seeds=3)
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(facts, default=list))
    assert {"rows", "paired", "verdict", "models", "speed", "stages", "licences", "recipe", "exports"} <= facts.keys()
    assert facts["main_metric"] == "loss"


def test_each_difference_has_its_judgement(facts_of):
    facts = facts_of()
    metrics = {one["name"]: Metric(**one) for one in facts["metrics"]}
    for pair in facts["paired"]:
        own = Paired.from_dict({name: value for name, value in pair.items() if name != "judgement"})
        assert pair["judgement"] == judge(own, metrics[pair["metric"]])


def test_the_cost_is_that_of_all_stages(facts_of):
    facts = facts_of()
    seconds = sum(stage["cost"]["seconds"] for stage in facts["stages"])
    assert facts["cost"]["seconds"] == seconds
    assert facts["cost"]["kind"] == "estimated"


def test_the_files_of_the_student_are_those_that_its_training_wrote(facts_of):
    (student,) = facts_of(files={"chat_template.jinja": "{{ 1 }}"})["students"]
    assert student["files"] == {
        "student/chat_template.jinja": 7,
        "student/config.json": 2,
        "student/model.safetensors": 7,
    }
    assert (student["bytes"], student["chats"], student["adapter"]) == (16, True, False)
