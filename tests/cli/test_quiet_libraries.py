"""Libraries are silent, except about what concerns a user."""

import logging
import os
import subprocess
import sys

import pytest

from potstill.cli.quiet_libraries import quiet_libraries


def shell(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_other_libraries_draw_bars_only_on_a_terminal(call, monkeypatch):
    for name in ("DATASETS_VERBOSITY", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    call("recipes")
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    quiet_libraries()
    assert os.environ == {"DATASETS_VERBOSITY": "critical"}


@pytest.mark.parametrize(
    ("name", "words"), [("torchao", "Failed to load %s"), ("torch.utils._pytree", "%s is an Enum subclass")]
)
def test_only_the_noise_is_hidden(name, words, caplog):
    quiet_libraries()
    logging.getLogger(name).warning(words, "x")
    logging.getLogger(name).warning("the weights are damaged")
    assert [record.getMessage() for record in caplog.records] == ["the weights are damaged"]


def test_libraries_warn_each_other_of_their_next_versions_only_if_asked():
    code = (
        "import warnings; from potstill.cli.quiet_libraries import quiet_libraries as quiet; quiet()\n"
        "for module in ('transformers.training_args', 'peft.x', 'mine', 'transformersmine'):\n"
        "    warnings.warn_explicit('of ' + module, FutureWarning, 'file.py', 1, module=module)\n"
    )
    assert shell("-c", code).stderr.splitlines() == [
        "file.py:1: FutureWarning: of mine",
        "file.py:1: FutureWarning: of transformersmine",
    ]
    assert shell("-W", "default", "-c", code).stderr.count("FutureWarning") == 4
