"""The reader of settings, on a class of its own."""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

import pytest

from vis_jax.settings import (
    Count,
    OneOf,
    Range,
    Share,
    describe,
    fields_of,
    read_settings,
    section,
    to_dict,
)


@section
class Disc:
    """A round part."""

    kind: Literal["disc"] = "disc"
    radius: Count = 3


@section
class Square:
    """A part with corners."""

    kind: Literal["square"] = "square"
    side: Count = 2
    corners: tuple[Share, ...] = (0.5,)


@section
class Whole:
    """All of them."""

    must: int
    weight: Annotated[float, Range(above=0, below=5)] = 1.0
    name: Annotated[str, OneOf(("a", "b"))] = "a"
    most: Count | None = None
    pair: tuple[Count, str] = (1, "x")
    part: Disc | Square = Square(side=7)
    first: bool = True
    more: Mapping[str, Disc] = field(default_factory=dict)

    def __post_init__(self):
        if self.most is not None and self.most < self.must:
            raise ValueError(f"most: expected at least {self.must}, got {self.most}")


def read(**values):
    return read_settings(Whole, {"must": 1, **values}, "top")


def test_what_is_not_given_is_the_default():
    assert read() == Whole(must=1)
    assert read(part={"side": 4}).part == Square(side=4)
    # The fields of a part that is given in part stay those of its default.
    assert read(part={"corners": [0, 1]}).part == Square(side=7, corners=(0.0, 1.0))


def test_a_tag_chooses_among_the_classes_of_a_part():
    assert read(part={"kind": "disc"}).part == Disc()
    assert read(part={"kind": "disc", "radius": 9}).part == Disc(radius=9)
    assert read(more={"one": {"radius": 5}}).more == {"one": Disc(radius=5)}


def test_whole_numbers_do_for_real_ones_and_lists_for_tuples():
    found = read(weight=2, pair=[3, "y"])
    assert (found.weight, found.pair) == (2.0, (3, "y"))
    assert type(found.weight) is float


def test_base_keeps_what_is_not_given():
    base = read(weight=2.0, part={"kind": "disc", "radius": 8})
    found = read_settings(Whole, {"weight": 3.0}, base=base)
    assert found == read(weight=3.0, part={"kind": "disc", "radius": 8})


def test_settings_survive_the_way_through_plain_values():
    found = read(part={"kind": "disc"}, more={"one": {"radius": 5}}, most=4)
    assert read_settings(Whole, to_dict(found)) == found


def test_every_field_is_described():
    texts = {name: describe(one) for name, one in fields_of(Whole).items()}
    assert texts["weight"] == "float, above 0 and below 5"
    assert texts["name"] == "one of ['a', 'b']"
    assert texts["most"] == "int or None, at least 1"
    assert texts["pair"] == "(int, str), at least 1"
    assert texts["first"] == "bool"
    corners = fields_of(Square)["corners"]
    assert describe(corners) == "(float, ..), 0 .. 1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(wieght=1), "top.wieght: no such field; did you mean 'weight'? expected"),
        (dict(zzz=1), "top.zzz: no such field; expected one of ['first', 'more', 'mo"),
        (dict(must=1.5), "top.must: expected int, got 1.5"),
        (dict(must=True), "top.must: expected int, got True"),
        (dict(weight="1"), "top.weight: expected float, above 0 and below 5, got '1'"),
        (dict(weight=True), "top.weight: expected float"),
        (dict(weight=0), "top.weight: expected float, above 0 and below 5, got 0"),
        (dict(weight=5.0), "top.weight: expected float, above 0 and below 5, got 5.0"),
        (dict(weight=float("nan")), "top.weight: expected float"),
        (dict(weight=float("inf")), "top.weight: expected float"),
        (dict(name="c"), "top.name: expected one of ['a', 'b'], got 'c'"),
        (dict(most=0), "top.most: expected int or None, at least 1, got 0"),
        (dict(must=5, most=4), "top.most: expected at least 5, got 4"),
        (dict(first=1), "top.first: expected bool, got 1"),
        (dict(pair=(1, 2)), "top.pair: expected (int, str), at least 1, got (1, 2)"),
        (dict(pair=(1, "a", "b")), "top.pair: expected (int, str)"),
        (dict(pair="ab"), "top.pair: expected (int, str)"),
        (dict(part=3), "top.part: expected fields and values, got 3"),
        (dict(part={"kind": "ring"}), "top.part.kind: expected one of ['disc', 'sq"),
        (dict(part={"radius": 1}), "top.part.radius: no such field with kind 'square'"),
        (dict(part={"side": 0}), "top.part.side: expected int, at least 1, got 0"),
        (dict(part={"corners": [2]}), "top.part.corners: expected (float, ..), 0 .. 1"),
        (dict(more={"one": {"radius": 0}}), "top.more.one.radius: expected int"),
    ],
)
def test_a_wrong_setting_is_named(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(**values)


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"^must: expected a value, got none"):
        read_settings(Whole, {})
