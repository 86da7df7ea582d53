"""Task files of lm-evaluation-harness over the real questions of ../shared/data, as lm-eval's own tasks ask them."""

import json
from pathlib import Path
from typing import Any

import yaml

from stories import SHARED

LAMBADA_FILE = Path(__file__).parents[1] / "experiments" / "tasks" / "lambada_here.yaml"
LAMBADA, PIQA, WINOGRANDE, EASY, CHALLENGE = "lambada_here", "piqa_here", "winogrande_here", "arc_easy_here", "arc_here"
BLIMP, ANSWERED, ROLLING = "blimp_here", "arc_answered_here", "lambada_rolling_here"
EVERY = (LAMBADA, PIQA, WINOGRANDE, EASY, CHALLENGE, BLIMP, ANSWERED, ROLLING)

SUBTASKS = ("anaphor_gender_agreement", "determiner_noun_agreement_1", "regular_plural_subject_verb_agreement_1")
"""Of BLiMP, those that the group is made of."""

MARK = "<|>"
PARTS = (
    "{% set parts = (instruction|regex_replace('\\s*(Solution|Option|Answer)(\\d: | format: )', '" + MARK + "'))"
    ".split('" + MARK + "') %}"
)
"""Of a question that is wrapped as an instruction: itself, each choice, and the names of the choices."""
QUESTION = "parts[0].split(': ', 1)[1]"
CHOICES = PARTS + "{{parts[1:-1]}}"
LABEL = "{{answer[-1]|int - 1}}"


def save_tasks(folder: Path) -> Path:
    """A task file of each, their data where it lies."""
    folder.mkdir(exist_ok=True)
    shipped = yaml.safe_load(LAMBADA_FILE.read_text(encoding="utf-8"))
    own = {name: shipped.pop(name) for name in ("task", "dataset_path", "dataset_kwargs", "test_split")}
    assert (own["task"], Path(own["dataset_kwargs"]["data_files"]["test"]).name) == (LAMBADA, "LAMBADA")
    _save(folder, LAMBADA, "lambada/test.jsonl", **shipped)
    asked = {"doc_to_text": PARTS + "Question: {{" + QUESTION + "}}\nAnswer:", "doc_to_target": LABEL}
    for name, file in ((PIQA, "piqa"), (EASY, "arc_easy"), (CHALLENGE, "arc_challenge")):
        _save(folder, name, f"choices/{file}.json", **asked, **_choice("acc", "acc_norm"), doc_to_choice=CHOICES)
    # As lm-eval has it: what stands before the blank, with each option in it, says how probable the rest is.
    _save(
        folder,
        WINOGRANDE,
        "choices/winogrande.json",
        doc_to_text=LABEL,
        doc_to_choice=PARTS
        + "{% set before = "
        + QUESTION
        + ".split('_')[0] %}{{[before + parts[1], before + parts[2]]}}",
        doc_to_target=PARTS + "{{" + QUESTION + ".split('_', 1)[1].strip()}}",
        **_choice("acc"),
    )
    for subtask in SUBTASKS:
        pair = {"doc_to_text": "", "doc_to_target": 0, "doc_to_choice": "{{[sentence_good, sentence_bad]}}"}
        _save(folder, f"blimp_{subtask}_here", f"blimp/{subtask}.jsonl", **pair, **_choice("acc"))
    group = {"group": BLIMP, "task": [f"blimp_{subtask}_here" for subtask in SUBTASKS]}
    _write(folder, BLIMP, group | {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}]})
    _save(
        folder,
        ANSWERED,
        "choices/arc_challenge.json",
        output_type="generate_until",
        doc_to_text="{{instruction}}\n",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
        filter_list=[{"name": "answer", "filter": [{"function": "regex", "regex_pattern": r"(answer\d)"}, _FIRST]}],
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    weighted = {"aggregation": "weighted_perplexity", "higher_is_better": False}
    _save(
        folder,
        ROLLING,
        "lambada/test.jsonl",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[
            {"metric": "word_perplexity", **weighted},
            {"metric": "byte_perplexity", **weighted},
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
        ],
    )
    return folder


_FIRST = {"function": "take_first"}


def _choice(*metrics: str) -> dict[str, Any]:
    listed = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics]
    return {"output_type": "multiple_choice", "metric_list": listed}


def _save(folder: Path, name: str, file: str, **fields: Any) -> None:
    where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str((SHARED / file).resolve())}}}
    _write(folder, name, {"task": name, **where, "test_split": "test", "metadata": {"version": 1.0}} | fields)


def _write(folder: Path, name: str, task: dict[str, Any]) -> None:
    # JSON is YAML, too.
    (folder / f"{name}.yaml").write_text(json.dumps(task), encoding="utf-8")
