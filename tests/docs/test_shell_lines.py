"""Shell lines in the docs: verbs, options (torchrun's too) and targets of make exist; blocks marked `run` run."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser
from typer.main import get_command

from potstill.cli import main
from tiny import llama, save_corpus, save_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(<!-- run -->\n)?```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = """\
about: A recipe of the docs, small
teachers: {t: {model: teacher}}
corpus: {sources: [{path: text.jsonl}], sequence_length: 16, held_out: 0.2}
student: {start: prune_layers, from: t, layers: 2}
capture: {}
distil: {losses: [{kind: forward_kl}], training: {max_steps: 2, per_device_train_batch_size: 2}}
evaluate: {speed: false}
precision: fp32
"""


def lines(page: Path, only_run: bool) -> list[list[str]]:
    """The words of each line of a page's blocks."""
    blocks = [block for run, block in BLOCK.findall(page.read_text(encoding="utf-8")) if run or not only_run]
    joined = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


MARKED = [page for page in PAGES if lines(page, only_run=True)]


def unknown(words: list[str]) -> str | None:
    """What a line names that does not exist."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return next((one for one in words[1:] if "=" not in one and one not in targets), None)
    if words[0] == "torchrun" and (wrong := unknown_to_torchrun(words[1:])) is not None:
        return wrong
    if "potstill" not in words[:-1]:
        return None
    verb, *given = words[words.index("potstill") + 1 :]
    command = get_command(main.app).commands.get(verb)
    if command is None:
        return verb
    known = {name for one in command.params for name in [*one.opts, *one.secondary_opts]}
    asked = [word.partition("=")[0] for word in given if word.startswith("--")]
    return next((one for one in asked if one not in known | {"--debug", "--help"}), None)


def unknown_to_torchrun(words: list[str]) -> str | None:
    """What torchrun's own parser does not know, or takes for the module in place of potstill."""
    parsed, others = get_args_parser().parse_known_args(words)
    module = parsed.training_script if parsed.module else None
    return next(iter(others), None) or (None if module == "potstill" else parsed.training_script)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_verbs_options_and_targets_exist(page):
    assert [found for words in lines(page, only_run=False) if (found := unknown(words))] == []


def test_what_does_not_exist_is_found():
    said = ["make quickstarts", "potstill distill x", "potstill run x --unti y", "torchrun -m potstill run x", "pip x"]
    said += ["torchrun --nods 2 -m potstill run x", "torchrun --nnodes potstill run x", "torchrun -m potstill ran x"]
    found = ["quickstarts", "distill", "--unti", None, None, "--nods", "run", "ran"]
    assert [unknown(line.split()) for line in said] == found


@pytest.mark.slow
@pytest.mark.parametrize("page", MARKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_marked_blocks_run(page, tmp_path, monkeypatch):
    """A recipe that `init` writes is replaced by a small one, so that minutes become seconds."""
    monkeypatch.chdir(tmp_path)
    save_model(llama(), Path("teacher"))
    save_corpus(Path("text.jsonl"))
    for words in lines(page, only_run=True):
        assert words[0] == "potstill", words
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main.main()
        assert not ended.value.code, words
        if words[1] == "init":
            Path(words[2]).write_text(SMALL)


def test_a_block_is_marked():
    assert MARKED
