"""Task files of lm-evaluation-harness over made-up local data: one of each kind that a language model can be asked."""

import json
from pathlib import Path
from typing import Any

from tiny import documents

ITEMS = 12
CHOICE, WORD, ROLLING, WRITING = "toy_choice", "toy_word", "toy_rolling", "toy_writing"
GROUP, BY_SIZE, TAG = "toy_group", "toy_group_by_size", "toy_tag"
UNSURE = "toy_unsure"


def save_tasks(folder: Path, items: int = ITEMS) -> Path:
    """`toy_choice` (acc, acc_norm), `toy_word` (perplexity and acc, as LAMBADA), `toy_rolling` (perplexities of whole
    texts, as WikiText), `toy_writing` (exact match), `toy_unsure` (a metric that lm-eval has no standard error of, and
    one without a direction), and two groups of two tasks of choice, which differ in size."""
    folder.mkdir(exist_ok=True)
    texts = [text.split() for text in documents(3 * items)]
    choices = [
        {"question": " ".join(one[:6]), "choices": [" ".join(one[6:9]), " ".join(other[6:9])], "label": at % 2}
        for at, (one, other) in enumerate(zip(texts, reversed(texts), strict=True))
    ]
    _save(folder, CHOICE, choices[:items], **_of_choice())
    _save(folder, "toy_more", choices[items : 2 * items], **_of_choice(), tag=TAG)
    _save(folder, "toy_less", choices[2 * items : 2 * items + items // 2], **_of_choice(), tag=TAG)
    unsure = {
        "metric_list": [_metric("acc"), _metric("acc_norm", higher=None), _metric("brier_score", "brier_score", False)]
    }
    _save(folder, UNSURE, choices[:items], **(_of_choice() | unsure))
    for group, by_size in ((GROUP, False), (BY_SIZE, True)):
        aggregates = [{"metric": metric, "weight_by_size": by_size} for metric in ("acc", "acc_norm")]
        members = {"group": group, "task": ["toy_more", "toy_less"], "aggregate_metric_list": aggregates}
        (folder / f"{group}.yaml").write_text(json.dumps(members | {"metadata": {"version": 1}}))
    rows = [{"text": " ".join(one[:12])} for one in texts[:items]]
    _save(
        folder,
        WORD,
        rows,
        output_type="loglikelihood",
        doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
        doc_to_target="{{' '+text.split(' ')[-1]}}",
        metric_list=[_metric("perplexity", "perplexity", False), _metric("acc")],
    )
    _save(
        folder,
        ROLLING,
        rows,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[
            _metric("word_perplexity", "weighted_perplexity", False),
            _metric("byte_perplexity", "weighted_perplexity", False),
            _metric("bits_per_byte", "bits_per_byte", False),
        ],
    )
    _save(
        folder,
        WRITING,
        [{"question": " ".join(one[:6]), "answer": "the"} for one in texts[:items]],
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 4, "do_sample": False},
        metric_list=[_metric("exact_match")],
    )
    return folder


def _of_choice() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "label",
        "doc_to_choice": "choices",
        "metric_list": [_metric("acc"), _metric("acc_norm")],
    }


def _metric(name: str, aggregation: str = "mean", higher: bool | None = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher}


def _save(folder: Path, name: str, rows: list[dict[str, Any]], **fields: Any) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data.resolve())}}}
    task = {"task": name, **where, "test_split": "test", **fields, "metadata": {"version": 1.0}}
    # JSON is YAML, too.
    (folder / f"{name}.yaml").write_text(json.dumps(task))
