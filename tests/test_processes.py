"""Processes that are forked from a server do what those of `python` do."""

import signal

import pytest

import processes


def test_it_is_given_words_and_variables_and_says_how_it_ended():
    code = "import os, sys; print(sys.argv[1:], os.environ['OWN']); print('aside', file=sys.stderr); sys.exit(3)"
    done = processes.run("-c", code, "word", 7, OWN="mine")
    assert (done.returncode, done.stdout, done.stderr) == (3, "['word', '7'] mine\n", "aside\n")


def test_a_module_and_a_script_are_run_as_the_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "[-w WIDTH]" in processes.run("-m", "calendar", "--help").stdout
    script = tmp_path / "script.py"
    script.write_text("import sys, beside; print(__name__, beside.VALUE, sys.argv[0])")
    (tmp_path / "beside.py").write_text("VALUE = 5")
    assert processes.run(script).stdout == f"__main__ 5 {script}\n"


def test_an_error_has_its_traceback():
    done = processes.run("-c", "raise ValueError('mine')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: mine\n")


def test_a_signal_is_told_as_one():
    done = processes.run("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL


def test_what_is_registered_for_its_end_is_done():
    assert processes.run("-c", "import atexit; atexit.register(print, 'the end')").stdout == "the end\n"


def test_a_rank_that_fails_ends_the_others():
    code = "import os, signal\nif os.environ['RANK'] == '1': raise ValueError('of rank 1')\nsignal.pause()"
    with pytest.raises(AssertionError, match="ValueError: of rank 1"):
        processes.run_ranks(2, "-c", code)


@pytest.mark.slow
def test_ranks_meet():
    code = "import torch.distributed as d; d.init_process_group('gloo'); d.barrier(); assert d.get_world_size() == 2"
    processes.run_ranks(2, "-c", code)
