"""The card: what it says, and that it says nothing that was not measured."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from potstill.export.licences import UNKNOWN, StatedLicence
from potstill.export.model_card import CARD, CHART, model_card, write_cards

REST = {"n": 20, "seeds": None, "over_units": None}
EXPORTS = [
    {
        "experiment": "student",
        "format": "gguf:Q4_K_M",
        "refused": "the loss is 3 nats | worse",
    },
    {
        "experiment": "student",
        "format": "gguf:Q8_0",
        "refused": None,
        "files": ["small-Q8_0.gguf"],
        "bytes": 87_000_000,
        "engine": "llama.cpp",
        "notes": ["its spaces are other ones"],
        "loss": {"model": "file", "metric": "loss", "value": 4.6834, "low": 4.6011, "high": 4.7522} | REST,
        "loss_difference": {"a": "file", "b": "student", "metric": "loss", "difference": 0.0021, "low": -0.001}
        | {"high": 0.005, "p": 0.2, "beyond_chance": False}
        | REST,
        "kl": {"model": "file", "metric": "kl", "value": 0.0031, "low": 0.0024, "high": 0.0039} | REST,
        "answers": 20,
        "answers_equal": 19,
        "decode_tokens_per_second": 71.3,
    },
]


def _card(facts, **how):
    return model_card(facts, facts["students"][0], **how)


def _plain(value):
    """The same facts as another process reads them."""
    return json.loads(json.dumps(value))


def _without_figures(value):
    """All numbers are 1, and no text has a digit but names."""
    if isinstance(value, dict):
        return {key: _without_figures(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_figures(one) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1
    return re.sub(r"\d", "", value) if isinstance(value, str) else value


def _numbers(value):
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_metadata_are_the_hubs(facts_of):
    data = ModelCard(_card(facts_of())).data
    assert data.base_model == ["HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert (data.base_model_relation, data.library_name) == ("finetune", "transformers")
    assert (data.datasets, data.license, data.pipeline_tag) == (["openai/gsm8k"], "apache-2.0", "text-generation")
    assert "knowledge-distillation" in data.tags
    facts = facts_of()
    measured = {(row["metric"], row["value"]) for row in facts["rows"] if row["model"] == "student"}
    assert {(one.metric_type, one.metric_value) for one in data.eval_results} == measured


def test_an_adapter_is_loaded_as_one(facts_of):
    card = _card(facts_of(files={"adapter_config.json": "{}"}))
    assert ModelCard(card).data.library_name == "peft"
    assert ModelCard(card).data.base_model_relation == "adapter"
    assert "AutoPeftModelForCausalLM.from_pretrained" in card


def test_it_tells_verdict_figures_and_control(facts_of):
    facts = facts_of(seeds=3)
    card = _card(facts)
    assert f"**{facts['verdict']['headline']}**" in card
    for sentence in facts["verdict"]["sentences"]:
        assert sentence in card
    assert (
        "| Metric | Student | Control | Student before | Teacher | Student − control | Student − before | n |" in card
    )
    assert "means of 3 trainings" in card
    assert "These weights are those of seed 0" in card
    assert "Captured of the teacher before the training: top 64 and tail of 800 sequences" in card
    assert facts["recipe_text"].strip() in card


def test_no_figure_is_there_that_the_run_did_not_measure(facts_of):
    facts = _plain(facts_of(seeds=3)) | {"exports": EXPORTS}
    nothing = _without_figures(facts)
    names = {"metrics": facts["metrics"], "licences": [], "recipe_text": ""}
    card = _card(nothing | names)
    words = re.sub(r"[01]|CO₂e", "", card)
    assert not re.findall(r"[^\s|]*\d[^\s|]*", words)


def test_each_figure_of_the_tables_is_in_the_comparison(facts_of):
    facts = _plain(facts_of(seeds=3))
    known = _numbers(facts["rows"]) + _numbers(facts["paired"])
    table = _card(facts).partition("## Figures")[2].partition("## Size")[0]
    rows = [line for line in table.splitlines() if re.match(r"\| (?!Metric|---)", line)]
    assert rows
    told = [number for row in rows for number in re.findall(r"[−+]?\d[\d,]*\.?\d*", row.partition(" | ")[2])]
    assert len(told) > 60
    for text in told:
        number, decimals = float(text.replace("−", "-").replace(",", "")), len(text.partition(".")[2])
        shown = (round(scale * one, decimals) for one in known for scale in (1, 100, 1e-3))
        assert any(abs(one - number) < 1e-9 for one in shown), text


def test_exported_files_have_a_line_and_a_command(facts_of):
    card = _card(facts_of() | {"exports": EXPORTS}, repository="me/small")
    assert "llama-cli -hf me/small:Q8_0" in card
    assert "ollama run hf.co/me/small:Q8_0" in card
    assert "| gguf:Q8_0 | 87.0 MB | llama.cpp | 4.68 [4.60, 4.75] | +0.002 [−0.001, +0.005] | 0.0031 [" in card
    assert " | 19 of 20 | 71.3 |" in card
    assert "- gguf:Q8_0: its spaces are other ones." in card
    assert "refused: the loss is 3 nats \\| worse" in card
    assert "ollama" not in _card(facts_of())


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("llama3", "forbids to improve other language models"),
        ("cc-by-nc-4.0", "forbids commercial use"),
        ("gemma", "its terms and its list of forbidden uses go along"),
        (UNKNOWN, "A licence above is unknown: check it"),
    ],
)
def test_a_licence_that_forbids_something_is_a_warning(facts_of, licence, told):
    card = _card(facts_of(licences=[StatedLicence("teacher t", "model", licence, "its card")]))
    assert re.search(rf"> \*\*Warning\.\*\* .*{re.escape(told)}", card)
    assert ModelCard(card).data.license == licence


def test_the_person_who_shares_it_can_give_a_licence(facts_of):
    licences = [StatedLicence("data x", "dataset", UNKNOWN, "check it")]
    card = _card(facts_of(licences=licences), licence="mit")
    assert ModelCard(card).data.license == "mit"
    assert "gives it the licence `mit`" in card


def test_what_a_user_wrote_does_not_break_it(facts_of):
    odd = "<script>alert(1)</script> | a\n# title **b**\n---\nlicense: mit"
    stated = [StatedLicence(f"data {odd}", "dataset", "a | b", "c\nd")]
    facts = facts_of(title=odd, story=odd, notes=(odd,), licences=stated)
    facts = facts | {"recipe_text": "about: |\n  ```\n  ````\n"}
    card = _card(facts)
    metadata, text = yaml.safe_load(card.split("---")[1]), card.split("---", 2)[2]
    assert metadata["license"] == "other"
    assert "<script>" not in text
    assert "`````yaml" in text
    widths = {}
    for line in text.splitlines():
        if line.startswith("| "):
            assert widths.setdefault("line", line.count(" | ")) == line.count(" | "), line
        else:
            widths.clear()


def test_a_run_without_control_speed_or_capture_has_a_card(facts_of):
    whole = facts_of()
    card = _card(
        facts_of(
            rows=tuple(row for row in _rows(whole) if row.model != "control"),
            paired=(),
            speed=None,
            stages=(),
            notes=(),
        )
    )
    assert "control" not in card.partition("## Figures")[2].partition("## Use it")[0].lower()
    assert "did not measure its speed" in card
    assert "Nothing was captured" in card


def _rows(facts):
    from potstill.metrics.results import Result

    return [Result.from_dict(row) for row in facts["rows"]]


def test_several_students_have_a_card_each(facts_of, tmp_path):
    facts = _plain(facts_of())
    rename = {"student": "student base"}
    for row in facts["rows"]:
        row["model"] = rename.get(row["model"], row["model"])
    for pair in facts["paired"]:
        pair["a"] = rename.get(pair["a"], pair["a"])
    others = [row | {"model": "student other", "value": 9.87654} for row in facts["rows"] if "base" in row["model"]]
    facts["rows"] += others
    (own,) = facts["students"]
    facts["students"] = [own | {"label": f"student {name}", "name": name} for name in ("base", "other")]
    written = write_cards(tmp_path / "export", facts, b"png")
    assert [file.relative_to(tmp_path).as_posix() for file in written] == [
        f"export/{name}/{CARD}" for name in ("base", "other")
    ]
    first, second = (file.read_text() for file in written)
    assert "Student base" in first
    assert "Student other |" not in first
    assert "9.88" in second
    assert (written[0].parent / CHART).read_bytes() == b"png"
