"""Documents from each kind of source, and one message for each source that cannot be read."""

import json

import pytest

from potstill.data.sources import Document, documents
from potstill.errors import UserError
from potstill.recipe.corpus import HubSource, PackageSource, PathSource

KEY = "corpus.sources.0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Use no network and leave nothing in the user's cache."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def texts(source):
    return [document.text for document in documents(source, KEY)]


@pytest.fixture
def read(folder):
    """Write a file and read its documents."""

    def read(name, content, **source):
        file = folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return texts(PathSource(path=str(file), **source))

    return read


def refusal(source):
    with pytest.raises(UserError) as told:
        list(documents(source, KEY))
    assert "\n" not in str(told.value)
    return str(told.value)


def rows(*texts, field="text"):
    return "".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(texts))


def test_plain_text_is_one_document(read):
    assert read("a.txt", "One.\n\nStill one.\n") == ["One.\n\nStill one.\n"]
    assert read("b.txt", "\ufeffwithout its byte order mark") == ["without its byte order mark"]
    assert read("c.txt", " \n\t") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", rows("One.", "Zwei, drei — 四\n5")), ("a.csv", 'id,text\n0,One.\n1,"Zwei, drei — 四\n5"\n')],
)
def test_a_row_is_a_document(read, name, content):
    assert read(name, content) == ["One.", "Zwei, drei — 四\n5"]


def test_parquet(folder):
    from datasets import Dataset

    Dataset.from_dict({"body": ["One.", None, "Two."]}).to_parquet(folder / "a.parquet")
    assert texts(PathSource(path=str(folder / "a.parquet"), field="body")) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "One."}\n{"text": null}\n\n{"text": "  "}\n{"other": 1}\n{"text": "Two."}\n'),
        ("a.csv", "id,text\n0,One.\n1,\n2,Two.\n"),
    ],
)
def test_rows_without_text_are_left_out(read, name, content):
    assert read(name, content) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.csv", "text\n"), ("a.txt", "")]
)
def test_an_empty_file_has_no_documents(read, name, content):
    assert read(name, content) == []


def test_another_field(read):
    assert read("a.jsonl", rows("One.", field="passage"), field="passage") == ["One."]


def test_a_wrong_field_is_told_with_those_there_are(folder):
    (folder / "a.jsonl").write_text(rows("One."))
    source = PathSource(path=str(folder / "a.jsonl"), field="txt")
    assert (
        refusal(source) == "`corpus.sources.0.field`: there is no field 'txt'; the fields are 'id', 'text' (a.jsonl:1)"
    )


def test_what_is_not_text_is_told_by_its_kind(folder):
    (folder / "a.jsonl").write_text(rows("One."))
    source = PathSource(path=str(folder / "a.jsonl"), field="id")
    assert refusal(source) == "`corpus.sources.0.field`: 'id' holds int, not text, at a.jsonl:1; name a field of texts"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "a.jsonl",
            b'{"text": "One."}\n{"text":\n',
            "cannot be read as jsonl: line 2 is not JSON (Expecting value",
        ),
        ("a.jsonl", b'{"text": "\xff"}\n', "cannot be read as jsonl: line 1 is not UTF-8 (byte 0xff)"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "cannot be read as jsonl: line 1 is not text: it holds half of"),
        ("a.csv", b"text\n\xff\n", "cannot be read as csv: 'utf-8' codec can't decode byte 0xff"),
        ("a.csv", b"text,id\na,1\na,1,2,3\n", "cannot be read as csv: Error tokenizing data"),
        ("a.csv", b"", "cannot be read as csv: No columns"),
        ("a.parquet", b"no parquet", "cannot be read as parquet: "),
        ("a.txt", b"ab\xff", "is not UTF-8 (byte 2); convert it first"),
    ],
    ids=["json", "utf-8", "surrogate", "csv utf-8", "csv", "empty csv", "parquet", "txt"],
)
def test_a_damaged_file_is_named_with_what_is_wrong(folder, name, content, why):
    (folder / name).write_bytes(content)
    assert f"`corpus.sources.0`: {folder / name} {why}" in refusal(PathSource(path=str(folder / name)))


def test_a_missing_file_is_named(folder):
    assert refusal(PathSource(path=str(folder / "no.txt"))).startswith("`corpus.sources.0.path`: no text at ")


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    (folder / "b.txt").write_text("Second.")
    (folder / "a.jsonl").write_text(rows("First."))
    (folder / "notes.md").write_text("no document")
    assert texts(PathSource(path=str(folder))) == ["First.", "Second."]


@pytest.fixture
def package(folder, monkeypatch):
    (folder / "site" / "carrier" / "data").mkdir(parents=True)
    (folder / "site" / "carrier" / "data" / "text.jsonl").write_text(rows("Packed.", field="passage"))
    (folder / "site" / "carrier" / "data" / "text.xml").write_text("<a/>")
    monkeypatch.syspath_prepend(folder / "site")


def test_a_file_inside_an_installed_package(package):
    source = PackageSource(package="carrier", file="data/*.jsonl", field="passage")
    assert texts(source) == ["Packed."]


def test_a_file_of_a_package_that_cannot_be_read_is_refused_too(package):
    assert "text.xml is of a kind that cannot be read" in refusal(PackageSource(package="carrier", file="data/*"))
    assert refusal(PackageSource(package="carrier", file="x.txt")).startswith(
        "`corpus.sources.0.file`: no file 'x.txt'"
    )


@pytest.fixture
def data_set(folder):
    """A folder in the format of the hub's data sets."""
    (folder / "set").mkdir()
    (folder / "set" / "train.jsonl").write_text(rows("To learn."))
    (folder / "set" / "test.jsonl").write_text(rows("To test."))
    return str(folder / "set")


def test_a_data_set_in_the_layout_of_the_hub(data_set):
    assert texts(HubSource(dataset=data_set)) == ["To learn."]
    assert texts(HubSource(dataset=data_set, split="test")) == ["To test."]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"split": "valid"}, ".dataset`: data set {} cannot be loaded: Unknown split"),
        ({"config": "large"}, ".dataset`: data set {} cannot be loaded: BuilderConfig 'large' not found"),
        ({"field": "body"}, ".field`: there is no field 'body'; the fields are 'id', 'text'"),
    ],
)
def test_a_part_that_a_data_set_does_not_have(data_set, asked, why):
    assert refusal(HubSource(dataset=data_set, **asked)).startswith(f"`{KEY}" + why.format(repr(data_set)))


def test_a_damaged_data_set(data_set, folder):
    (folder / "set" / "train.jsonl").write_text("{")
    assert "cannot be loaded: JSON parse error" in refusal(HubSource(dataset=data_set))


@pytest.mark.parametrize("name", ["Salesforce/wikitext", "no-such-set", "./no/such/folder"])
def test_a_data_set_that_cannot_be_had_is_named(name):
    assert refusal(HubSource(dataset=name)).startswith(
        f"`corpus.sources.0.dataset`: data set {name!r} cannot be loaded: "
    )


def test_a_document_knows_where_it_is_from(folder, data_set):
    (folder / "cbt.train").write_text("One.")
    assert list(documents(PathSource(path=str(folder / "cbt.train")), KEY)) == [Document("One.", "cbt.train")]
    assert list(documents(HubSource(dataset=data_set), KEY)) == [Document("To learn.", data_set)]
    assert list(documents(HubSource(dataset=data_set, config="default"), KEY)) == [Document("To learn.", "default")]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("stem", ["part[1]", "a*b", "q?", "{x}", "a b", "%20", "#", "-x", "~x", "ä", "$HOME", "a::b"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".json", ".csv", ".parquet"])
def test_a_file_is_found_by_its_name(folder, monkeypatch, stem, ending, relative):
    from datasets import Dataset

    here = folder / "in[1]"
    here.mkdir()
    (folder / "in1").mkdir()
    for place, text in ((folder / "in1" / stem, "wrong"), (here / "part1", "wrong"), (here / stem, "right")):
        file = place.with_name(place.name + ending)
        content = {".txt": text, ".csv": f"text\n{text}\n", ".json": json.dumps([{"text": text}])}
        file.write_text(content.get(ending, rows(text)))
        if ending == ".parquet":
            with file.open("wb") as stream:
                Dataset.from_dict({"text": [text]}).to_parquet(stream)
    monkeypatch.chdir(here)
    assert texts(PathSource(path=stem + ending if relative else str(here / (stem + ending)))) == ["right"]


def test_a_row_without_the_field_is_left_out_unless_all_are(folder):
    (folder / "a.jsonl").write_text('{"id": 1}\n{"id": 2, "text": "Two."}\n')
    (folder / "b.jsonl").write_text('{"id": 1}\n{"other": 2}\n')
    assert texts(PathSource(path=str(folder / "a.jsonl"))) == ["Two."]
    told = refusal(PathSource(path=str(folder)))
    assert told.endswith("there is no field 'text'; the fields are 'id', 'other' (b.jsonl:1)")


def test_texts_that_look_like_something_else_stay_texts(read):
    texts = ["NA", "null", "None", "nan", "n/a", "007", "2020-01-01", "1e5", "True"]
    assert read("a.csv", "text\n" + "\n".join(texts)) == texts
    assert read("a.jsonl", rows(*texts)) == texts
    assert read("a.json", json.dumps([{"text": text} for text in texts])) == texts


def test_a_file_that_a_pattern_would_match_in_a_package(folder, package):
    data = folder / "site" / "carrier" / "data"
    (data / "part[1].jsonl").write_text(rows("right"))
    (data / "part1.jsonl").write_text(rows("wrong"))
    assert texts(PackageSource(package="carrier", file="data/part[1].jsonl")) == ["right"]


@pytest.mark.parametrize("stream", [False, True])
def test_texts_that_look_like_nothing_are_texts_in_a_folder_of_csv_too(folder, stream):
    (folder / "stories").mkdir()
    written = ["NA", "null", "None", "nan", "n/a", "", "2020-01-01"]
    rows = "\n".join(f'"{text}",{number}' for number, text in enumerate(written))
    (folder / "stories" / "train.csv").write_text(f"text,number\n{rows}\n")
    found = texts(HubSource(dataset=str(folder / "stories"), field="text", stream=stream))
    assert sorted(found) == sorted(text for text in written if text)
