"""A teacher that `potstill serve` gives is prepared: its head and its tokenizer are in the run folder."""

import json
from dataclasses import replace

import pytest

from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.recipe.teachers import PotstillTeacher
from potstill.teachers.prepare import prepare
from potstill.teachers.prepared import HEAD, PreparedTeacher
from potstill.teachers.serving.server import application
from tiny import llama, tokenizer
from toy_server import served, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return served(llama(0), tmp_path_factory.mktemp("served"))


def prepared(url, folder):
    teacher = PotstillTeacher(server=url, api="potstill")
    return PreparedTeacher.load(prepare("big", teacher, folder), server=teacher)


def test_the_run_folder_has_all_that_is_needed_of_it(model, tmp_path):
    with serving(application(model, None)) as url:
        teacher = prepared(url, tmp_path / "big")
        assert prepared(url, tmp_path / "big") == teacher
    assert teacher.hosted == model.facts.teacher
    assert (tmp_path / "big" / HEAD).read_bytes() == model.head
    assert tokenizer_fingerprint(teacher.tokenizer()) == tokenizer_fingerprint(tokenizer())
    assert (teacher.config().vocab_size, teacher.parameters(), teacher.is_elsewhere) == (300, None, True)
    with pytest.raises(UserError, match=r"`teachers.big.server`: no server answers"):
        teacher.beside()
    with pytest.raises(UserError, match=r"`teachers.big` is behind a server, and this needs its weights here"):
        teacher.model()


def test_another_number_format_is_another_teacher(model, tmp_path):
    other = replace(model, facts=replace(model.facts, teacher=replace(model.facts.teacher, dtype="bfloat16")))
    found = []
    for number, one in enumerate((model, other)):
        with serving(application(one, None)) as url:
            found.append(prepared(url, tmp_path / str(number)).fingerprint)
    assert found[0] != found[1]


def test_a_tokenizer_that_is_read_otherwise_here_is_refused(model, tmp_path):
    changed = json.loads(model.tokenizer["tokenizer.json"])
    changed["added_tokens"].append(changed["added_tokens"][0] | {"id": 300, "content": "<|new|>"})
    files = model.tokenizer | {"tokenizer.json": json.dumps(changed)}
    refused = pytest.raises(UserError, match="gave a tokenizer that is read otherwise here")
    with serving(application(replace(model, tokenizer=files), None)) as url, refused:
        prepared(url, tmp_path / "big")
    assert not (tmp_path / "big" / "teacher.json").exists()
