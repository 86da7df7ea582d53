"""The review of a run: its output, and that no decision is ever lost."""

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import minimal
from potstill.cli import main
from potstill.cli.review import Record, answers_of, export, review
from potstill.errors import UserError
from potstill.metrics.answers.decisions import NONE, WITHDRAWN, Decision, decided, queue, read_decisions
from potstill.pipeline.manifest import MANIFEST, write_manifest
from potstill.pipeline.run_folder import Run

UNREAD = {"When?": "It ends at 3:30.", "How many?": "Many of them.", "How much?": "1.5 million"}
SETTLED = {"Why?": "18"}


def answers(model, responses, folder):
    (folder / "answers" / model).mkdir(parents=True)
    rows = [
        {"id": f"test:{number}", "question": question, "reference": f"Reference of {question}\n#### 18"}
        | {"response": response, "tokens": 3, "hit_limit": False}
        for number, (question, response) in enumerate(responses.items())
    ]
    file = folder / "answers" / model / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = dict.fromkeys(
        ("step", "key", "inputs", "started", "attempts", "cost", "summary", "recipe", "forecast", "peak_memory")
    )
    write_manifest(file.parent, step, [file])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in which two models gave the same answers, except for one answer."""
    monkeypatch.chdir(tmp_path)
    made = Run(tmp_path / "run")
    with made.open(minimal.recipe(tmp_path).model_dump(mode="json", by_alias=True)):
        pass
    answers("student/start", {**UNREAD, **SETTLED}, made.folder)
    answers("base/seed-0", {**UNREAD, **SETTLED, "When?": "At 12:15."}, made.folder)
    return made


@pytest.fixture
def sit(run, monkeypatch, capsys):
    """One session: the person types these lines, then the input ends; returns the output."""

    def typed(*lines, who="ann"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        review(run.folder, who)
        return capsys.readouterr().out

    return typed


def recorded(run):
    return read_decisions(run.folder / "review" / "decisions.csv")


def said(run):
    return [each.decision for each in recorded(run)]


def test_each_different_response_is_asked_once_and_then_none_is_left(run, sit):
    out = sit("1", "2", "3", "none")
    assert re.findall(r"^(\d of \d)$", out, re.MULTILINE) == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]
    assert out.startswith("rules settled 2 of 8 answers; the others have 4 different texts, of which 4 are undecided")
    assert said(run) == ["1", "2", "3", NONE]
    assert [each.key for each in recorded(run)] == list(queue(answers_of(run.folder)))
    assert sit() == "nothing is left to decide: rules settled 2 of 8 answers, and persons 6\n"
    assert {each.rule for each in decided(answers_of(run.folder), recorded(run))} == {"first_line", "person"}


def test_question_response_and_reference_are_shown(sit):
    out = sit("skip", "skip", "skip", "skip")
    for shown in (*UNREAD, *UNREAD.values(), "Reference of When?\n#### 18"):
        assert shown in out
    assert "this cannot be read: 3:30\n" in out
    assert "this cannot be read: 1.5 million\n" in out
    assert "no number was found in the response\n" in out
    assert not re.search("seed|student|base|test:", out), "a judge must not know whose answer it is"


def test_a_record_has_the_person_the_decision_and_the_time(run, sit):
    sit("1,000", who="bob")
    (row,) = recorded(run)
    asked = next(iter(queue(answers_of(run.folder)).values()))
    assert (row.decision, row.who, row.question, row.response) == ("1,000", "bob", asked.question, asked.response)
    assert datetime.fromisoformat(row.when).utcoffset().total_seconds() == 0


def test_the_login_name_decides_unless_another_is_given(run, sit, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    sit("1", who=None)
    sit("2", who=" ")
    assert [each.who for each in recorded(run)] == ["root", "root"]

    def nobody():
        raise OSError("no user 1000")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(UserError, match="name the person who decides with `--who NAME`"):
        review(run.folder, None)


def test_a_reply_that_is_not_a_number_is_asked_again(run, sit):
    out = sit("five", "", "3:30", "7")
    assert out.count("is no number; write one like 18, -3, 0.5, 1/2 or 1,000, or none, skip, undo or quit\n") == 3
    assert said(run) == ["7"]


def test_a_skipped_answer_comes_back_next_time(run, sit):
    out = sit("skip", "5", "quit")
    assert "3 left, 1 of them skipped; " in out
    assert recorded(run)[0].key == list(queue(answers_of(run.folder)))[1]
    assert re.findall(r"^(\d of \d)$", sit("quit"), re.MULTILINE) == ["1 of 4"]


def test_undo_reaches_earlier_sessions_and_stays_on_record(run, sit):
    sit("1", "2")
    out = sit("3", "undo", "undo", "20")
    assert re.findall(r"^(\d of \d)$", out, re.MULTILINE) == ["3 of 4", "4 of 4", "3 of 4", "2 of 4", "3 of 4"]
    assert "taken back: 3, decided 20" in out
    assert "taken back: 2, decided 20" in out
    assert said(run) == ["1", "2", "3", WITHDRAWN, WITHDRAWN, "20"]
    assert [each.who for each in recorded(run)] == ["ann"] * 6
    first, second, *open_ = [each.rule for each in decided(list(queue(answers_of(run.folder)).values()), recorded(run))]
    assert (first, second, open_) == ("person", "person", ["review", "review"])


def test_undo_does_not_take_back_another_persons_decision(run, sit):
    sit("1", who="bob")
    assert "ann has no decision to take back\n" in sit("undo", "quit")
    assert said(run) == ["1"]


def test_decisions_hold_when_a_model_answers_again(run, sit):
    sit("1", "2", "3", "4")
    answers("base/seed-1", {"When?": "It ends at 3:30.", "Who?": "Somebody, at 1:2."}, run.folder)
    assert "5 different texts, of which 1 are undecided" in sit("quit")


def test_a_model_with_unfinished_answers_is_left_out(run):
    (run.folder / "answers" / "base" / "seed-0" / MANIFEST).unlink()
    assert {each.model for each in answers_of(run.folder)} == {"student/start"}


def test_characters_that_would_move_the_cursor_are_made_visible(run, sit):
    answers("evil", {"Q\x1b[2J": "\x1b]0;title\x07 \x08oxed \u202e3:30 [bold]x[/bold]\r\n"}, run.folder)
    out = sit(*["skip"] * 5)
    assert not re.search("[\x1b\x07\x08\r\u202e]", out)
    assert "␛]0;title␇ ␈oxed \ufffd3:30 [bold]x[/bold]\n" in out


def test_what_cannot_be_read_is_cut_short_and_the_response_is_not(run, sit):
    repeated = "2." * 300
    answers("repeats", {"How old?": f"It is {repeated}2"}, run.folder)
    out = sit(*["skip"] * 5)
    assert f"It is {repeated}2\n" in out
    assert f"this cannot be read: {repeated[:80]}…\n" in out


def edited(run, change):
    """An input that changes the record before it gives a decision, as an editor would."""
    file = run.folder / "review" / "decisions.csv"

    class Typist(io.StringIO):
        def readline(self, *size):
            if self.tell() and change:
                file.write_bytes(change.pop()(file.read_bytes().decode()).encode())
            return super().readline(*size)

    return Typist


def test_an_edit_during_the_review_is_kept(run, monkeypatch):
    typist = edited(run, [lambda text: text.replace(",1,ann,", ",11,ann,")])
    monkeypatch.setattr(sys, "stdin", typist("1\n2\n"))
    review(run.folder, "ann")
    assert said(run) == ["11", "2"]


def test_an_editor_that_saves_an_old_version_loses_no_decision(run, sit, monkeypatch, capsys):
    sit("1")
    old = (run.folder / "review" / "decisions.csv").read_text().replace(",1,ann,", ",11,ann,")
    monkeypatch.setattr(sys, "stdin", edited(run, [lambda _: old])("2\n3\n"))
    review(run.folder, "ann")
    assert said(run) == ["11", "2", "3"]
    assert "1 of this session's decisions were missing in" in capsys.readouterr().out


def test_an_unreadable_edit_and_the_decisions_are_both_kept(run, sit, monkeypatch):
    file = run.folder / "review" / "decisions.csv"
    monkeypatch.setattr(sys, "stdin", edited(run, [lambda text: text.replace(",1,ann,", ",one,ann,")])("1\n2\n3\n"))
    with pytest.raises(UserError, match=r"decisions\.csv, line 2: `decision`: 'one' is no number") as complaint:
        review(run.folder, "ann")
    assert "your decisions are in" in str(complaint.value)
    assert "\n" not in str(complaint.value)
    assert ",one,ann," in file.read_text(), "the edit stays"
    with pytest.raises(UserError, match="'one' is no number"):
        review(run.folder, "ann")
    file.write_text(file.read_text().replace(",one,ann,", ",100,ann,"))
    assert "of which 2 are undecided" in sit("quit")
    assert said(run) == ["100", "2"]
    assert not list(file.parent.glob("waiting-*"))


def test_two_reviews_at_once_lose_no_decision(run):
    folder = run.folder / "review"
    first, second = Record(folder), Record(folder)
    about = list(queue(answers_of(run.folder)).values())
    for place, record in enumerate([first, second, first, second]):
        when = f"2026-01-31T12:00:0{place}+00:00"
        record.add(Decision.about(about[place], str(place), "ann", when))
    assert said(run) == ["0", "1", "2", "3"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_before_the_first_question(run):
    run.folder.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        review(run.folder, "ann")


def test_a_file_instead_of_the_folder_is_refused(run):
    (run.folder / "review").write_text("mine")
    with pytest.raises(UserError, match=r"decisions\.csv cannot be written \(file exists\)"):
        review(run.folder, "ann")


def test_a_run_without_answers_is_refused(run, tmp_path):
    (run.folder / "answers").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="run has no answers yet; `potstill answers RECIPE` makes them"):
        review(run.folder, "ann")


def test_a_damaged_answer_is_refused(run):
    file = run.folder / "answers" / "base" / "seed-0" / "answers.jsonl"
    file.write_text(file.read_text().replace("12:15", "12:16"))
    with pytest.raises(UserError, match=r"answers\.jsonl is damaged; `potstill run RECIPE` makes it again"):
        answers_of(run.folder)


def test_if_rules_settle_every_answer_nothing_is_asked_or_written(run, sit):
    shutil.rmtree(run.folder / "answers")
    answers("all", SETTLED, run.folder)
    assert sit() == "nothing is left to decide: rules settled 1 of 1 answers\n"
    assert not (run.folder / "review").exists()


def test_an_export_is_a_csv_and_never_overwrites_a_file(run, sit, tmp_path, monkeypatch, capsys):
    sit("18", "none")
    monkeypatch.setattr(sys, "argv", ["potstill", "review", str(run.folder), "--export", "all.csv"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert (ended.value.code, capsys.readouterr().out) == (0, "8 answers written to all.csv\n")
    with (tmp_path / "all.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert {row["model"] for row in rows} == {"base/seed-0", "student/start"}
    assert {"correct", "no answer", "needs review"} == {row["verdict"] for row in rows}
    assert {row["answer"] for row in rows if row["verdict"] == "no answer"} == {"-1"}
    with pytest.raises(UserError, match=r"all\.csv is there already; choose another name"):
        export(run.folder, tmp_path / "all.csv")
    with pytest.raises(UserError, match="cannot be written"):
        export(run.folder, tmp_path / "nowhere" / "all.csv")


def command(run):
    """The command that a shell would start."""
    return [sys.executable, "-m", "potstill", "review", str(run.folder), "--who", "ann"]


def test_a_killed_review_keeps_its_decisions(run):
    with subprocess.Popen(command(run), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as sitting:
        sitting.stdin.write("18\n")
        assert "2 of 4\n" in iter(sitting.stdout.readline, "")
        sitting.kill()
    assert said(run) == ["18"]


def test_ctrl_c_on_a_terminal_keeps_the_decisions(run):
    # A child of its own session, whose terminal this is: otherwise Ctrl-C would reach nobody. Nor would it where the
    # tests themselves were started in a shell's background, which ignores it, and hands that down.
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-c", "import os, fcntl, signal, termios, sys; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
         f"signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, {command(run)!r})"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment,
    ) as sitting:  # fmt: skip
        os.close(theirs)
        try:
            shown = until(ours, "quit: ")
            os.write(ours, b"1/2\n")
            shown += until(ours, "quit: ")
            # Python loses a signal that comes after the prompt and before it waits for a line.
            wait_until_it_sleeps(sitting.pid)
            os.write(ours, b"\x03")
            shown += until(ours, "counts the decisions")
            assert sitting.wait() == 0
        finally:
            sitting.kill()  # else leaving the block would wait for it for ever
    os.close(ours)
    assert said(run) == ["1/2"]
    assert "─ 1 of 4 ─" in re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert "\x1b[1;7m" in shown, "the unreadable part is highlighted"


def until(terminal, text):
    shown = ""
    while text not in shown:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def wait_until_it_sleeps(process):
    while Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "S":
        pass
