"""The wheel: what a user installs has everything that the recipes of README's table need, in an empty folder.

And what else is packaged: the sdist, the extras, the Dockerfile, the citation.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from potstill.recipe import load_recipe, shipped_recipes
from potstill.rehearsal.cut import cut_recipe
from potstill.rehearsal.hub import hub
from potstill.rehearsal.stand_ins import DATA, TABLE, make_stand_ins

ROOT = Path(__file__).parents[1]
TABLE_ROW = re.compile(r"^\| \[`([\w-]+)`\]\((src/potstill/recipe/shipped/[\w.-]+)\)", re.MULTILINE)

READ = """
import json, sys
from pathlib import Path
import potstill
from potstill.data.sources import documents, rows
from potstill.files import named_data
from potstill.pipeline.runner import check_stages
from potstill.recipe import load_recipe
from potstill.recipe.questions import GeneratedQuestions

named_data.TABLE = Path(sys.argv[1])
found = {"package": potstill.__file__}
for name in sys.argv[2:]:
    recipe = load_recipe(name)
    check_stages(recipe, without=["evaluate"])
    read = 0
    for section in (recipe.corpus, recipe.corpus.held_out):
        for reader, kind in ((documents, "sources"), (rows, "questions"), (rows, "conversations")):
            for source in getattr(section, kind, None) or ():
                if not isinstance(source, GeneratedQuestions):
                    next(iter(reader(source, kind)))
                read += 1
    for pairs in recipe.evaluate.minimal_pairs.values():
        named_data.named_files(pairs.data, pairs.split, "pairs")
        read += 1
    for teacher in recipe.teachers.values():
        if hasattr(teacher, "data"):
            named_data.named_files(teacher.data, "model", "teacher")
            read += 1
    found[name] = read
print(json.dumps(found))
"""


def readme_recipes():
    """The recipes of README's table."""
    return [name for name, _ in TABLE_ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))]


def build(target, source, folder):
    """Build a wheel or an sdist from a source tree, and return its file."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's files, as `pip install --target` leaves them."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def call(installed, empty, *command, **variables):
    # `-P` keeps the current folder off the path.
    environment = os.environ | {"PYTHONPATH": str(installed), "NO_PROXY": "127.0.0.1"} | variables
    return subprocess.run(
        [sys.executable, "-P", *command], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )


def test_it_has_every_file_of_the_package(installed):
    ours = {file.relative_to(ROOT / "src") for file in (ROOT / "src" / "potstill").rglob("*") if file.is_file()}
    there = {file.relative_to(installed) for file in installed.rglob("*")}
    assert not {file for file in ours - there if "__pycache__" not in file.parts}


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    for name in ("sdist", "unpacked", "again"):
        (tmp_path / name).mkdir()
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", source, tmp_path / "again")
    contents = [{file.filename: file.CRC for file in zipfile.ZipFile(one).infolist()} for one in (wheel, again)]
    assert contents[0] == contents[1]
    assert again.name == wheel.name


def test_the_extra_all_has_every_other_that_needs_no_compiler():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (every,) = project["optional-dependencies"]["all"]
    named = set(re.fullmatch(r"potstill\[(.+)\]", every)[1].split(","))
    assert named == set(project["optional-dependencies"]) - {"all", "bench", "dev", "docs", "llama-cpp"}


def test_what_is_cited_is_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    for name in ("version", "license"):
        assert cited[name] == project[name]
    assert f"## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_dockerfile_is_locked_and_runs_without_rights():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    copied = [
        file for line in lines if line.startswith("COPY ") and "--from" not in line for file in line.split()[1:-1]
    ]
    assert copied
    assert all((ROOT / file).exists() for file in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert all(f"!{file}" in ignored for file in copied)
    assert "--constraint requirements.lock" in "\n".join(lines)
    assert "USER 1000" in lines
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (torch,) = [line for line in lock if line.startswith("torch==")]
    assert torch in "\n".join(lines)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (data,) = re.findall(r"^DATA +:= (.+)$", makefile, re.MULTILINE)
    assert f"--no-deps {data}" in "\n".join(lines)


def test_the_dockerfile_is_linted():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint, which lints the Dockerfile, is not installed")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_its_command_lists_the_recipes(installed, tmp_path):
    told = call(installed, tmp_path, "-m", "potstill", "recipes")
    assert told.returncode == 0, told.stderr
    assert [line.split()[0] for line in told.stdout.splitlines()] == list(shipped_recipes())


def test_its_recipes_are_planned_in_an_empty_folder_without_a_network(installed, tmp_path):
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    (tmp_path / "empty").mkdir()
    command = ("-m", "potstill", "plan", "babyllama-mini", "--machine", "h100-80gb", "--json")
    told = call(installed, tmp_path / "empty", *command, **variables)
    assert told.returncode == 0, told.stderr
    assert {"distil/seed-0", "evaluate"} <= json.loads(told.stdout)["steps"].keys()
    assert not list((tmp_path / "empty").iterdir())


def test_ci_runs_each_recipe_of_the_readme_from_the_wheel():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rehearsed = [
        name for line in re.findall(r"^REHEARSED \+?:?= (.+)$", makefile, re.MULTILINE) for name in line.split()
    ]
    packaged = re.findall(r"venv/bin/potstill run (\S+)", makefile.partition("\npackage:")[2].partition("\n\n")[0])
    assert packaged == ["quickstart"]
    # Each of these takes some ten minutes of a core.
    left_out = {"distilpythia-mini", "chat"}
    assert set(readme_recipes()) - {*rehearsed, *packaged} == left_out
    assert set(rehearsed) <= set(shipped_recipes())
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make package", 'make rehearse POTSTILL="$PWD/build/package/venv/bin/potstill"'} <= set(ci)


@pytest.mark.slow
def test_the_recipes_of_the_readme_find_their_data_from_an_empty_folder(installed, tmp_path):
    names = readme_recipes()
    assert len(names) == len((ROOT / "README.md").read_text().split("| recipe |")[1].split("\n\n")[0].splitlines()) - 2
    repositories = {}
    for name in ("distilllama", "distilpythia", "gsm8k", "chat"):
        # Their models, and the data of all recipes.
        repositories |= make_stand_ins(cut_recipe(load_recipe(name)), tmp_path / name)
    stand_ins = tmp_path / "chat"
    (tmp_path / "empty").mkdir()
    with hub(repositories) as address:
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        own |= {"HF_HUB_DISABLE_XET": "1", "POTSTILL_DATA": str(stand_ins / DATA)}
        told = call(installed, tmp_path / "empty", "-c", READ, str(stand_ins / TABLE), *names, **own)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    assert Path(found.pop("package")).is_relative_to(installed)
    assert list(found) == names
    assert all(found.values())
    assert not list((tmp_path / "empty").iterdir())
