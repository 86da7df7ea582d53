"""Hub: a student's upload to the Hugging Face hub, with its card and, if chosen, its exported files.

Large files go one by one, and the hub keeps each of them. So the same command goes on after a broken connection. At the
end one commit puts all files into the repository, which is never half there.

The token is that of the environment (`HF_TOKEN`) or of `hf auth login`. Nothing of it is written anywhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.console import say, size
from potstill.errors import UserError, first_line
from potstill.export.licences import UNKNOWN
from potstill.export.model_card import CARD, CHART, REPOSITORY, card_folder, model_card
from potstill.files.atomic import digest, read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runs import COMPARISON
from potstill.recipe.candidates import Candidate

OURS = "potstill"
"""The tag on every card of ours."""
ALWAYS_THERE = {".gitattributes"}
"""The files of an empty repository."""


@dataclass(frozen=True)
class Upload:
    """What goes to the hub."""

    card: str
    files: Mapping[str, Path]
    """By their names in the repository, without the card."""
    warnings: Sequence[str]
    """What the person who shares it should know, a sentence each."""

    def lines(self) -> list[str]:
        """A line for each file, with its size."""
        sizes = {CARD: len(self.card.encode())} | {name: file.stat().st_size for name, file in self.files.items()}
        width = max(map(len, sizes))
        return [f"{name:<{width}}  {size(count):>9}" for name, count in sizes.items()]


def upload_of(run: Run, repository: str, experiment: str | None, exports: Sequence[str], licence: str | None) -> Upload:
    """Everything that would be uploaded. Nothing is sent.

    Args:
        run: a finished run.
        repository: the name on the hub.
        experiment: the student, where there are several.
        exports: formats of exported files that go along; `all` stands for every one.
        licence: the licence that the person gives.

    Raises:
        UserError: the run has no report yet, there is no such student or export, a file is not as it was written, or a
            licence has conditions and no licence is given.
    """
    facts = _facts(run)
    student = _student(facts, experiment)
    _check_student(run, student)
    _check_licences(facts, licence)
    chosen = _exports(facts, student, exports)
    if student["adapter"] and "merged" not in {one["format"] for one in chosen}:
        raise UserError(
            f"{student['folder']} is an adapter on a start that only this run has; `potstill export RUN --to merged` "
            "makes one model of both, and `--export merged` uploads it"
        )
    files = {} if student["adapter"] else _student_files(run, student)
    for one in chosen:
        files |= _exported_files(run, student, one)
    folder = card_folder(run.path("export"), facts, student)
    if (folder / CHART).is_file():
        files[CHART] = folder / CHART
    # Of an adapter, the merged model is uploaded; of the exported files, the chosen ones.
    shared = {**facts, "exports": chosen}, {**student, "adapter": False}
    text = _edited(folder / CARD, facts, student)
    if text is None:
        card = model_card(*shared, repository, licence, has_chart=CHART in files)
    else:
        card = _completed(text, repository, licence)
    unknown = [one["of"] for one in facts["licences"] if one["licence"] == UNKNOWN]
    warnings = [f"the licence of {each} is unknown; check it" for each in unknown if licence is None]
    return Upload(card, files, warnings)


def push(upload: Upload, repository: str, *, private: bool) -> str:
    """Upload, and return the address of the repository.

    Raises:
        UserError: there is no token, the hub refuses, the repository has another content, or the connection breaks.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise UserError("there is no token of the hub; set HF_TOKEN, or log in with `hf auth login`")
    api = HfApi(library_name=OURS)
    with _explained(repository):
        _check_repository(api, repository, private)
        address = str(api.create_repo(repository, private=private, exist_ok=True))
        operations = [CommitOperationAdd(CARD, upload.card.encode())]
        for name, file in upload.files.items():
            say(f"{name}, {size(file.stat().st_size)}")
            operations.append(CommitOperationAdd(name, file))
            api.preupload_lfs_files(repository, operations[-1:], free_memory=False)
        api.create_commit(repository, operations, commit_message="A student of potstill, with its card")
    return address


def _facts(run: Run) -> dict[str, Any]:
    found = read_json(run.path("report") / COMPARISON)
    if found is None or run.manifest("report") is None:
        raise UserError(f"{run.folder} has no report yet, of which the card is made; `potstill run` makes it")
    facts: dict[str, Any] = found
    return facts


def _student(facts: Mapping[str, Any], experiment: str | None) -> dict[str, Any]:
    students = {str(one["name"]): one for one in facts["students"]}
    if experiment is None and len(students) == 1:
        return dict(next(iter(students.values())))
    if experiment not in students:
        names = ", ".join(students) if len(facts["students"]) > 1 else "one alone, so leave the option out"
        wrong = "is missing" if experiment is None else f"{experiment!r} is none of the students"
        raise UserError(f"`--experiment` {wrong}; they are {names}")
    return dict(students[experiment])


def _check_student(run: Run, student: Mapping[str, Any]) -> None:
    manifest, report = run.manifest(student["step"]), run.manifest("report")
    if manifest is None:
        damaged = run.damaged(student["step"])
        what = next((f"{run.path(student['step']) / name} is {word}" for name, word in damaged.items()), None)
        what = what or f"the student in {student['folder']} is not finished"
        raise UserError(f"{what}; run the recipe again, which makes it")
    if report is None or report["inputs"]["steps"].get(student["step"]) != digest(manifest):
        raise UserError(f"{student['folder']} was made after the report; `potstill report` measures it anew")


def _student_files(run: Run, student: Mapping[str, Any]) -> dict[str, Path]:
    folder = run.path(student["step"])
    return {name.removeprefix("student/"): folder / name for name in student["files"]}


def _exports(facts: Mapping[str, Any], student: Mapping[str, Any], wanted: Sequence[str]) -> list[dict[str, Any]]:
    own = {student["label"], Candidate("student", student["name"]).label}
    there = {one["format"]: one for one in facts["exports"] if one["experiment"] in own and not one.get("refused")}
    if "all" in wanted:
        return list(there.values())
    for each in wanted:
        if each not in there:
            known = f"there are {', '.join(there)}" if there else "`potstill export RUN --to FORMAT` makes them"
            raise UserError(f"`--export {each}`: the run has no such file of this student; {known}")
    return [there[each] for each in wanted]


def _exported_files(run: Run, student: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Path]:
    """The files of an exported format. At the top lie GGUF files, and `merged` in the place of an adapter."""
    step = f"export/{student['name'] or 'student'}/{one['format'].replace(':', '-')}"
    if run.manifest(step) is None:
        raise UserError(f"{run.path(step)} is not as it was written; run the recipe again, which makes it anew")
    at_top = one["format"].startswith("gguf:") or (one["format"] == "merged" and student["adapter"])
    found: dict[str, Path] = {}
    for place in (run.path(step) / name for name in one["files"]):
        every = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
        beside = place.parent if place.is_file() else place
        names = (file.relative_to(beside).as_posix() for file in every)
        found |= {name if at_top else f"{one['format']}/{name}": file for name, file in zip(names, every, strict=True)}
    return found


def _check_licences(facts: Mapping[str, Any], licence: str | None) -> None:
    bound = [one for one in facts["licences"] if one["conditions"]]
    if bound and licence is None:
        first = bound[0]
        raise UserError(
            f"the licence of {first['of']} ({first['licence']}) {first['conditions'][0]}; read it, and give the "
            "student's licence as `--licence ID`"
        )


def _edited(file: Path, facts: Mapping[str, Any], student: Mapping[str, Any]) -> str | None:
    """The text of a card that a person has changed since the report wrote it; None if it is not changed."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    return None if text == model_card(facts, student, has_chart=file.with_name(CHART).is_file()) else text


def _completed(text: str, repository: str, licence: str | None) -> str:
    """A card of a person's own words, with the repository and the licence that are known now."""
    from huggingface_hub import ModelCard

    card = ModelCard(text.replace(REPOSITORY, repository))
    metadata: Any = card.data
    if licence is not None:
        metadata.license = licence
    return str(card)


def _check_repository(api: Any, repository: str, private: bool) -> None:
    """Refuse a repository that holds another model, or that everybody can see although it should be private."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.repo_info(repository)
    except RepositoryNotFoundError:
        return
    names = {one.rfilename for one in found.siblings or ()}
    if names - ALWAYS_THERE and OURS not in (found.tags or ()):
        raise UserError(f"{repository} exists on the hub and holds something else; choose another name for `--to`")
    if private and not found.private:
        raise UserError(f"{repository} exists on the hub and everybody can see it; choose another name for `--to`")


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn what the hub and the network answer into a sentence."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError:
        raise UserError(f"`--to {repository}` is no name on the hub; give one such as user/name") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids the network; unset it to upload") from None
    except HfHubHTTPError as error:
        raise UserError(_refusal(repository, error)) from error
    except ValueError as error:
        if "Invalid metadata" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise UserError(f"the hub refuses the card ({said}); correct export/{CARD} in the run folder") from error
    except (HTTPError, OSError, RuntimeError) as error:
        raise UserError(f"the connection to the hub broke ({first_line(error)}); the same command goes on") from error


def _refusal(repository: str, error: Any) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return "the hub refuses the token; set a valid one in HF_TOKEN, or log in with `hf auth login`"
    if status in (403, 404):
        return f"the token has no right to write to {repository}; take one with write access, or another name"
    if status >= 500 or status == 429:
        return f"the hub is overloaded or down (it answers {status}); the same command goes on"
    return f"the hub refuses {repository} ({first_line(error)})"
