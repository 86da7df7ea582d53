"""A run beside another one links its folders without a copy, except those that it makes itself."""

from experiments.sharing import beside
from potstill.pipeline.run_folder import Run


def test_shared_folders_are_linked_and_own_folders_are_missing(tmp_path):
    base = Run(tmp_path / "base")
    for file in ("corpus/rows", "distil/seed-0/weights", "evaluate/x"):
        (base.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (base.folder / file).write_text(file)
    run = beside(base, tmp_path / "runs" / "other", ("distil", "evaluate"))
    assert (run.folder / "corpus/rows").samefile(base.folder / "corpus/rows")
    assert not (run.folder / "distil").exists()
    assert not (run.folder / "evaluate").exists()
    (run.folder / "mine").touch()
    assert (beside(base, tmp_path / "runs" / "other", ()).folder / "mine").exists(), "one that exists stays as it is"
