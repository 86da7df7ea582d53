"""The upload: against a stand-in of the hub, with all that can go wrong."""

import huggingface_hub
import pytest
from huggingface_hub import ModelCard, constants

from export.conftest import COST
from export.hub_server import serve
from potstill.errors import UserError
from potstill.export.hub import push, upload_of
from potstill.export.licences import UNKNOWN, StatedLicence
from potstill.recipe.step import Step

WEIGHTS = {"model.safetensors": "w" * 1000}
GGUF = {"experiment": "student", "format": "gguf:Q8_0", "refused": None, "files": ["small-Q8_0.gguf", "Modelfile"]}
GGUF |= {"bytes": 1, "engine": "llama.cpp", "answers": 1, "answers_equal": 1, "decode_tokens_per_second": 1.0}
FIGURE = {"model": "file", "metric": "loss", "value": 1.0, "low": 1.0, "high": 1.0, "n": 9}
FIGURE |= {"seeds": None, "over_units": None}
DIFFERENCE = {"a": "file", "b": "student", "metric": "loss", "difference": 0.0, "low": 0.0, "high": 0.0, "n": 9}
DIFFERENCE |= {"p": 1.0, "seeds": None, "over_units": None}
GGUF |= {"loss": FIGURE, "kl": FIGURE, "loss_difference": DIFFERENCE}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve() as found:
        for name, value in {
            "ENDPOINT": found.address,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", found.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # The hub's library waits longer and longer between its tries.
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
        yield found


def _upload(run, experiment=None, exports=(), licence=None, repository="me/small"):
    return upload_of(run, repository, experiment, exports, licence)


def _exported(run, entry, *names):
    step = Step("export", name=f"student/{entry['format'].replace(':', '-')}")
    run.begin(step, {}, {})
    for name in names:
        file = run.path(step) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name} " * 30)
    run.finish(step, COST, [run.path(step) / name for name in names], {})
    return run


def test_the_student_and_its_card_are_in_the_repository(hub, reported, capsys):
    run = reported(files=WEIGHTS)
    address = push(_upload(run), "me/small", private=False)
    assert address == f"{hub.address}/me/small"
    found = hub.repositories["me/small"]
    assert set(found["files"]) == {".gitattributes", "README.md", "chart.png", "config.json", "model.safetensors"}
    assert found["files"]["model.safetensors"] == b"w" * 1000
    assert not found["private"]
    card = found["files"]["README.md"].decode()
    assert 'from_pretrained("me/small")' in card
    assert "USER/NAME" not in card
    assert "model.safetensors, 1.0 kB" in capsys.readouterr().out


def test_a_dry_run_sends_nothing(hub, reported):
    lines = _upload(reported(files=WEIGHTS)).lines()
    assert [line.split() for line in lines[1:]] == [
        ["config.json", "2", "B"],
        ["model.safetensors", "1.0", "kB"],
        ["chart.png", "9", "B"],
    ]
    assert lines[0].startswith("README.md ")
    assert hub.asked == []


def test_private_stays_private(hub, reported):
    run = reported(files=WEIGHTS)
    push(_upload(run), "me/small", private=True)
    assert hub.repositories["me/small"]["private"]
    push(_upload(run), "me/small", private=True)
    hub.repositories["me/small"]["private"] = False
    with pytest.raises(UserError, match="everybody can see it"):
        push(_upload(run), "me/small", private=True)


def test_a_broken_upload_leaves_nothing_half_and_goes_on(hub, reported):
    run = reported(files=WEIGHTS | {"tokenizer.json": "t" * 500})
    hub.breaks_from = 1
    with pytest.raises(UserError, match=r"the connection to the hub broke \(.*\); the same command goes on"):
        push(_upload(run), "me/small", private=False)
    assert set(hub.repositories["me/small"]["files"]) == {".gitattributes"}
    assert hub.uploads == [1000]
    hub.breaks_from = None
    push(_upload(run), "me/small", private=False)
    assert hub.uploads == [1000, 500], "the first file was not sent again"
    assert "model.safetensors" in hub.repositories["me/small"]["files"]


def test_a_second_push_replaces_the_first(hub, reported):
    run = reported(files=WEIGHTS)
    push(_upload(run), "me/small", private=False)
    push(_upload(run, licence="mit"), "me/small", private=False)
    assert ModelCard(hub.repositories["me/small"]["files"]["README.md"].decode()).data.license == "mit"
    assert len(hub.uploads) == 1


def test_a_name_that_holds_something_else_is_refused(hub, reported):
    hub.repositories["me/small"] = {"private": False, "tags": ["bert"], "files": {"model.safetensors": b"another"}}
    with pytest.raises(UserError, match="me/small exists on the hub and holds something else; choose another name"):
        push(_upload(reported()), "me/small", private=False)
    assert hub.repositories["me/small"]["files"] == {"model.safetensors": b"another"}


def test_no_token(hub, reported, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="there is no token of the hub; set HF_TOKEN, or log in"):
        push(_upload(reported()), "me/small", private=False)
    assert hub.asked == []


def test_a_wrong_token(hub, reported, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="the hub refuses the token") as refused:
        push(_upload(reported()), "me/small", private=False)
    assert "hf_wrong" not in str(refused.value)


def test_no_right_to_write(hub, reported):
    hub.may_write = False
    with pytest.raises(UserError, match="the token has no right to write to other/small"):
        push(_upload(reported(), repository="other/small"), "other/small", private=False)


@pytest.mark.parametrize(("status", "told"), [(503, "overloaded or down"), (402, "the hub refuses me/small")])
def test_what_the_hub_answers_is_a_sentence(hub, reported, status, told):
    hub.answers["/api/repos/create"] = status
    with pytest.raises(UserError, match=told):
        push(_upload(reported()), "me/small", private=False)


def test_no_network(hub, reported, monkeypatch):
    upload = _upload(reported())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the connection to the hub broke"):
        push(upload, "me/small", private=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids the network"):
        push(upload, "me/small", private=False)


@pytest.mark.parametrize("name", ["me/-small", "me/a--b", "me/a..b", "me/" + "a" * 97])
def test_a_name_that_the_hub_does_not_have(hub, reported, name):
    with pytest.raises(UserError, match="is no name on the hub"):
        push(_upload(reported(), repository=name), name, private=False)


def test_a_licence_with_conditions_needs_one_given(reported):
    run = reported([StatedLicence("teacher t", "model", "llama3.2", "its card")])
    with pytest.raises(UserError, match=r"^the licence of teacher t \(llama3.2\) wants .* as `--licence ID`$"):
        _upload(run)
    card = _upload(run, licence="llama3.2").card
    assert ModelCard(card).data.license == "llama3.2"
    assert "Built with Llama" in card, "the warning stays"


def test_an_unknown_licence_is_a_warning(reported):
    run = reported([StatedLicence("data x", "dataset", UNKNOWN, "check it")])
    assert _upload(run).warnings == ["the licence of data x is unknown; check it"]
    assert _upload(run, licence="mit").warnings == []


def test_a_card_that_a_person_changed_is_uploaded_as_it_is(reported):
    run = reported()
    card = run.path("export") / "README.md"
    card.write_text(card.read_text() + "\nMy own words.\n")
    found = _upload(run, licence="mit").card
    assert "My own words." in found
    assert 'from_pretrained("me/small")' in found
    assert ModelCard(found).data.license == "mit"
    card.unlink()
    assert "My own words." not in _upload(run).card


def test_a_card_that_the_hub_refuses(hub, reported):
    run = reported(files=WEIGHTS)
    card = run.path("export") / "README.md"
    card.write_text(card.read_text().replace("pipeline_tag: text-generation", "pipeline_tag: made-up"))
    with pytest.raises(UserError, match=r"the hub refuses the card \(.*no tag\); correct export/README.md"):
        push(_upload(run), "me/small", private=False)
    assert set(hub.repositories["me/small"]["files"]) == {".gitattributes"}


def test_a_run_without_report(tmp_path, reported):
    run = reported()
    (run.path("report") / "manifest.json").unlink()
    with pytest.raises(UserError, match="has no report yet, of which the card is made"):
        _upload(run)


@pytest.mark.parametrize("how", ["missing", "damaged", "half"])
def test_a_student_that_is_not_whole(reported, how):
    run = reported(files=WEIGHTS)
    folder = run.path(Step("distil", 0))
    if how == "missing":
        (folder / "student" / "model.safetensors").unlink()
    elif how == "damaged":
        (folder / "student" / "model.safetensors").write_text("x" * 1000)
    else:
        (folder / "manifest.json").unlink()
    told = "is not finished" if how == "half" else rf"model.safetensors is {how}"
    with pytest.raises(UserError, match=rf"{told}; run the recipe again"):
        _upload(run)


def test_a_student_that_is_newer_than_the_report(reported):
    run = reported()
    step = Step("distil", 0)
    student = run.path(step) / "student"
    run.begin(step, {"other": 1}, {})
    student.mkdir()
    (student / "config.json").write_text("{}")
    run.finish(step, COST, [student], {})
    with pytest.raises(UserError, match="was made after the report; `potstill report` measures it anew"):
        _upload(run)


@pytest.mark.parametrize("name", ["base", ""])
def test_there_is_no_such_student(reported, name):
    with pytest.raises(UserError, match="is none of the students; they are one alone, so leave the option out"):
        _upload(reported(), experiment=name)


def test_exported_files_go_along_by_choice(reported):
    run = _exported(reported(exports=[GGUF], files=WEIGHTS), GGUF, "small-Q8_0.gguf", "Modelfile")
    assert "small-Q8_0.gguf" not in _upload(run).files
    assert "llama-cli" not in _upload(run).card, "the card tells of nothing that is not there"
    assert "llama-cli -hf me/small:Q8_0" in _upload(run, exports=["all"]).card
    for chosen in (["gguf:Q8_0"], ["all"]):
        assert {"small-Q8_0.gguf", "Modelfile", "model.safetensors"} <= set(_upload(run, exports=chosen).files)
    with pytest.raises(UserError, match=r"`--export gguf:F16`: the run has no such file .* there are gguf:Q8_0"):
        _upload(run, exports=["gguf:F16"])
    (run.folder / "export" / "student" / "gguf-Q8_0" / "small-Q8_0.gguf").write_text("half")
    with pytest.raises(UserError, match="is not as it was written"):
        _upload(run, exports=["all"])


def test_an_adapter_is_uploaded_as_one_model(reported):
    entry = GGUF | {"format": "merged", "files": ["model"]}
    files = {"adapter_config.json": "{}", "adapter_model.safetensors": "a" * 100}
    run = _exported(reported(exports=[entry], files=files), entry, "model/config.json", "model/model.safetensors")
    with pytest.raises(UserError, match=r"is an adapter on a start that only this run has; .*`--export merged`"):
        _upload(run)
    found = _upload(run, exports=["merged"])
    assert set(found.files) == {"config.json", "model.safetensors", "chart.png"}
    assert ModelCard(found.card).data.library_name == "transformers"


def test_a_file_that_was_refused_is_not_there(reported):
    run = reported(exports=[{"experiment": "student", "format": "gguf:Q8_0", "refused": "too far off"}])
    assert "gguf:Q8_0" not in " ".join(_upload(run, exports=["all"]).files)
    with pytest.raises(UserError, match="`--export gguf:Q8_0`: the run has no such file"):
        _upload(run, exports=["gguf:Q8_0"])
