"""Stand-ins: writes the repositories of the hub, and the named data, that a cut recipe reads."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from potstill.files import named_data
from potstill.files.atomic import sha256, write_text
from potstill.files.named_files import named_folder
from potstill.recipe.corpus import HubDataset
from potstill.recipe.questions import QuestionBase
from potstill.recipe.strategies import fields_of
from potstill.rehearsal.cut import CutRecipe
from potstill.rehearsal.data_sets import HUB_DATA, NAMED_FILES, DataSet, problem
from potstill.rehearsal.small_models import save_small_model
from potstill.rehearsal.words import paragraph

DATA, HUB, LOCAL, TABLE = "data", "hub", "models", "named_data.yaml"


def make_stand_ins(cut: CutRecipe, folder: Path) -> dict[str, Path]:
    """Write everything that the recipe names by a name on the hub, and all named data, into a folder.

    Models in folders of this machine are written too, and the recipe is changed to name the small ones.

    Returns:
        The repositories, as :func:`potstill.rehearsal.hub.hub` takes them.
    """
    repositories: dict[str, Path] = {}
    for number, (name, files) in enumerate(cut.files.items()):
        place = folder / HUB / "models" / name if files.on_hub else folder / LOCAL / str(number)
        save_small_model(cut.small[name], files.tokenizer, place, seed=number)
        if files.on_hub:
            repositories[f"models/{name}"] = place
        else:
            cut.rename(name, str(place.absolute()))
    for number, (name, data) in enumerate({**HUB_DATA, **_unknown_data(cut)}.items()):
        repositories[f"datasets/{name}"] = folder / HUB / "datasets" / name
        data.save(repositories[f"datasets/{name}"], seed=number)
    return repositories | _make_named_data(folder)


def _make_named_data(folder: Path) -> dict[str, Path]:
    """Write the named data that is no data set of the hub, and the table with the checksums of the stand-ins.

    Returns:
        The repositories of this data.
    """
    table = yaml.safe_load(named_data.TABLE.read_text(encoding="utf-8"))
    repositories: dict[str, Path] = {}
    for name, entry in table.items():
        own, hub = folder / DATA / entry["folder"], entry.get("hub")
        home = folder / HUB / f"{hub['kind']}s" / hub["repository"] if hub else own
        if name in NAMED_FILES:
            for file, content in NAMED_FILES[name]():
                (home / file).parent.mkdir(parents=True, exist_ok=True)
                (home / file).write_bytes(content)
            if hub:
                repositories[f"{hub['kind']}s/{hub['repository']}"] = home
        sums = {file: _first_sum(file, own, home) for file in entry.get("sha256", {})}
        entry["sha256"] = {file: found for file, found in sums.items() if found is not None} or entry.get("sha256", {})
        real = named_data.named_data(name).own_folder()
        if not home.exists() and real is not None and real.exists():
            # Data without a stand-in is small, and is used as it is.
            own.parent.mkdir(parents=True, exist_ok=True)
            own.symlink_to(real.absolute())
    write_text(folder / TABLE, yaml.safe_dump(table, sort_keys=False))
    return repositories


def _first_sum(file: str, *places: Path) -> str | None:
    return next((sha256(place / file) for place in places if (place / file).is_file()), None)


def _unknown_data(cut: CutRecipe) -> dict[str, DataSet]:
    """Stand-ins of data sets whose columns only the recipe tells."""
    found = {}
    for source in _hub_sources(cut):
        if source.dataset in HUB_DATA or named_folder(source.dataset) is not None:
            continue
        config, split = source.config or "default", source.split.partition("[")[0]
        file = {f"{config}/{split}-00000-of-00001.parquet": (config, split)}
        found[source.dataset] = DataSet(_row_of(source), file, rows=400)
        cut.notes.append(f"{source.dataset}: its configurations and columns, which are taken from the recipe")
    return found


def _hub_sources(cut: CutRecipe) -> Iterator[HubDataset]:
    corpus = cut.recipe.corpus
    held_out = getattr(corpus, "held_out", None)
    for section in (corpus, held_out):
        for source in getattr(section, "sources", None) or getattr(section, "questions", None) or ():
            if isinstance(source, HubDataset):
                yield source


def _row_of(source: HubDataset) -> Any:
    """Makes rows with the columns that a source names."""
    if not isinstance(source, QuestionBase):
        column = getattr(source, "field", "text")
        return lambda draw, number: {column: paragraph(draw, 8)}
    asked, answered = fields_of(source.question), fields_of(source.reference)

    def row(draw: random.Random, number: int) -> dict[str, Any]:
        made = problem(draw, number)
        return dict.fromkeys(asked, made["question"]) | dict.fromkeys(answered, made["answer"])

    return row
