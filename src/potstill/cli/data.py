"""Data: the public data that recipes can name, and where it is on this machine."""

from collections.abc import Sequence

from potstill.console import table
from potstill.errors import UserError
from potstill.files.named_data import VARIABLE, NamedData, all_named_data, named_data


def described(names: Sequence[str]) -> str:
    """Each of the data, and where each of its splits is. All files are read, and compared with the published ones.

    Raises:
        UserError: there is no data of that name.
    """
    rows, chosen = [("name", "split", "on this machine", "folder", "licence")], _chosen(names)
    for data in chosen:
        rows += [(data.name, split, _place(data, split), data.folder, data.licence) for split in data.splits]
    about = [f"{data.name}: {data.about}. Home: {data.home}." for data in chosen]
    where = f"Data is looked for in its folder in ${VARIABLE}, then in the cache of the Hugging Face hub."
    return "\n".join([table(rows), "", *about, "", where])


def fetched(names: Sequence[str]) -> str:
    """The same, once all files are on this machine and are those that the table means.

    Raises:
        UserError: data cannot be fetched, or a file is another one. All other data is fetched first.
    """
    refused = []
    for data in _chosen(names):
        try:
            for split in data.splits:
                data.files(split, None, data.name)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("\n".join(refused))
    return described(names)


def _chosen(names: Sequence[str]) -> list[NamedData]:
    return [named_data(name) for name in names] if names else list(all_named_data().values())


def _place(data: NamedData, split: str) -> str:
    """Where a split is, how much of it, and which of its files are not the published ones."""
    whole = data.on_this_machine(split)
    found = data.own_files(split) if whole is None else whole
    if not found:
        return "no; `--fetch` gets it" if data.hub is not None else "no"
    file, name = found[0]
    said = [str(file.parents[name.count("/")])]
    if whole is None:
        said.append(f"{len(found)} of {data.file_count(split)} files")
    others = [name for file, name in found if data.is_another_file(file, name)]
    if len(others) == 1:
        said.append(f"{others[0]} is another file than the published one")
    elif others:
        said.append(f"{others[0]} and {len(others) - 1} more are other files than the published ones")
    return ", ".join(said)
