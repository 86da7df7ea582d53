"""Licences: where they are read, and what they ask of a student."""

import struct

import pytest

import minimal
from potstill.export import licences as module
from potstill.export.licences import UNKNOWN, StatedLicence, licence_of_student, licences


def _stated(*named):
    return [StatedLicence(f"{kind} {at}", kind, name, "").to_dict() for at, (kind, name) in enumerate(named)]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([("model", "apache-2.0"), ("dataset", "MIT")], {"license": "apache-2.0"}),
        ([("model", "mit"), ("dataset", "CC-BY-4.0"), ("dataset", "cc0-1.0")], {"license": "mit"}),
        ([("model", "apache-2.0"), ("dataset", UNKNOWN)], {"license": UNKNOWN}),
        ([("model", UNKNOWN), ("dataset", "cc-by-nc-4.0")], {"license": UNKNOWN}),
        ([("model", "llama3.2"), ("dataset", "mit")], {"license": "llama3.2"}),
        ([("model", "gemma"), ("dataset", "apache-2.0")], {"license": "gemma"}),
        ([("dataset", "CC-BY-SA-3.0")], {"license": "cc-by-sa-3.0"}),
        ([], {"license": UNKNOWN}),
    ],
)
def test_a_student_inherits(named, expected):
    assert licence_of_student(_stated(*named)) == expected


@pytest.mark.parametrize(
    "named",
    [
        [("model", "gemma"), ("dataset", "cc-by-nc-4.0")],
        [("model", "apache-2.0"), ("dataset", "each source's own, for research")],
        [("model", "deepseek-license"), ("dataset", "mit")],
        [("model", "llama3.1"), ("dataset", "a licence of our own")],
    ],
)
def test_conditions_that_no_single_licence_says_are_other(named):
    found = licence_of_student(_stated(*named))
    assert found["license"] == "other"
    assert found["license_link"] == "README.md"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("llama2", "other language models"),
        ("llama3", "other language models"),
        ("llama3.1", "Built with Llama"),
        ("Llama 3.3", "Built with Llama"),
        ("llama4", "Built with Llama"),
        ("gemma", "Gemma"),
        ("cc-by-nc-sa-4.0", "commercial"),
        ("CC BY-NC 4.0 (Alpaca)", "commercial"),
        ("cc-by-nd-4.0", "share"),
        ("bigscience-openrail-m", "restrictions of use"),
        ("gpl-3.0", "same licence"),
        ("research only", "commercial"),
    ],
)
def test_conditions_are_said(name, told):
    assert any(told in one for one in StatedLicence("x", "model", name, "").conditions)


@pytest.mark.parametrize("name", ["apache-2.0", "MIT", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "isc", UNKNOWN])
def test_a_permissive_licence_has_no_conditions(name):
    assert StatedLicence("x", "model", name, "").conditions == []


def test_llama_3_is_not_taken_for_3_1():
    assert len(StatedLicence("x", "model", "llama3.1", "").conditions) == 1
    assert len(StatedLicence("x", "model", "llama3", "").conditions) == 1


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    minimal.inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: minimal.recipe(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\nlicense: other\nlicense_name: my-own\n---\n", "my-own"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit and apache-2.0"),
        ("---\nlicense: unknown\n---\n", UNKNOWN),
        ("---\ntags: [a]\n---\n", UNKNOWN),
        ("# No metadata", UNKNOWN),
        ("---\n: : :\n---\n", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_a_folders_card_says_its_licence(recipe, tmp_path, card, expected):
    if card is not None:
        (tmp_path / "teacher" / "README.md").write_text(card)
    teacher, data = licences(recipe())
    assert (teacher.of, teacher.licence, teacher.repository) == ("teacher t", expected, None)
    assert (data.of, data.licence) == ("data text.txt", UNKNOWN)
    assert "check" in data.stated_in


def test_named_data_and_the_hub(recipe, monkeypatch):
    asked = []

    def on_hub(name, kind, revision):
        asked.append((name, kind, revision))
        return "llama3.2" if kind == "model" else None

    monkeypatch.setattr(module, "_on_hub", on_hub)
    sources = (
        "corpus.sources=[{data: wikitext-2, field: text}, {dataset: some/text, revision: r}, {dataset: some/text}]"
    )
    found = licences(recipe("teachers.t={model: meta-llama/Llama-3.2-1B}", sources))
    assert [(one.repository, one.licence) for one in found] == [
        ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("Salesforce/wikitext", "CC-BY-SA-3.0"),
        ("some/text", UNKNOWN),
    ]
    assert asked[0] == ("meta-llama/Llama-3.2-1B", "model", None)


def test_without_a_network_a_licence_is_unknown(recipe):
    (teacher, _) = licences(recipe("teachers.t={model: meta-llama/Llama-3.2-1B}"))
    assert (teacher.licence, teacher.stated_in) == (UNKNOWN, "check the card of meta-llama/Llama-3.2-1B on the hub")


def _gguf(file, **texts):
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    facts = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in texts.items())
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(texts)) + facts)


@pytest.mark.parametrize(
    ("texts", "expected"), [({"general.license": "apache-2.0"}, "apache-2.0"), ({"general.license": " "}, UNKNOWN)]
)
def test_a_gguf_file_says_its_licence(recipe, tmp_path, monkeypatch, texts, expected):
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("")
    _gguf(tmp_path / "some_package" / "m.gguf", **texts)
    monkeypatch.syspath_prepend(tmp_path)
    (teacher, _) = licences(recipe("teachers.t={package: some_package, gguf: m.gguf}"))
    assert teacher.licence == expected


def test_served_teachers_are_checked_by_a_person(recipe):
    server = "teachers.t={server: 'http://127.0.0.1:1/v1', model: m, api: vllm, tokenizer: teacher}"
    (teacher, _) = licences(recipe(server, "student={start: scratch, config: {model_type: llama}}"))
    assert teacher.licence == UNKNOWN
    assert "operator" in teacher.stated_in
