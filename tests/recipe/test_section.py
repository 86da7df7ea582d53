"""Every number and every switch of every section takes numbers and switches only."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from potstill.recipe import Recipe
from potstill.recipe.section import Section


def parts(kind: Any) -> list[Any]:
    """The plain types of an annotation: the branches of unions, without what is added to them."""
    if get_origin(kind) is Annotated:
        return parts(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for branch in get_args(kind) for one in parts(branch)]
    return [kind]


def sections(kind: Any, found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """All sections that an annotation can lead to."""
    for one in parts(kind):
        if not (isinstance(one, type) and issubclass(one, BaseModel)):
            for inner in get_args(one):
                sections(inner, found)
        elif one not in found:
            found.add(one)
            for field in one.model_fields.values():
                sections(field.annotation, found)
    return found


ALL = sorted(sections(Recipe, set()), key=lambda one: one.__name__)
FIELDS = [
    pytest.param(one, field.alias or name, {*parts(field.annotation)}, id=f"{one.__name__}.{name}")
    for one in ALL
    for name, field in one.model_fields.items()
]
NUMBERS = [one for one in FIELDS if {int, float} & one.values[2] and str not in one.values[2]]
WHOLE = [one for one in NUMBERS if float not in one.values[2]]
SWITCHES = [one for one in FIELDS if bool in one.values[2] and str not in one.values[2]]


def refused(section, name, value):
    """Whether a section refuses the value of this key, whatever else it misses."""
    with pytest.raises(ValidationError) as error:
        section.model_validate({name: value})
    return any(name in one["loc"] for one in error.value.errors())


def test_the_walk_finds_the_sections():
    assert len(ALL) > 30
    assert len(NUMBERS) > 40
    assert all(issubclass(one, Section) for one in ALL)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), True, "3", "3.5", ["3"], -7], ids=str)
@pytest.mark.parametrize(("section", "name", "kinds"), NUMBERS)
def test_no_number_takes_these(section, name, kinds, value):
    assert refused(section, name, value)


@pytest.mark.parametrize(("section", "name", "kinds"), WHOLE)
def test_a_whole_number_is_whole(section, name, kinds):
    assert refused(section, name, 2.5)


@pytest.mark.parametrize("value", ["yes", "true", 1, 0, 1.0], ids=str)
@pytest.mark.parametrize(("section", "name", "kinds"), SWITCHES)
def test_no_switch_takes_these(section, name, kinds, value):
    assert refused(section, name, value)


def test_a_whole_number_may_be_written_as_yaml_likes_it():
    class Numbers(Section):
        count: int
        share: float

    assert Numbers.model_validate({"count": 1e6, "share": 1}) == Numbers(count=1_000_000, share=1.0)
