from typing import NamedTuple

import pytest
from vis_jax.trackers.settings import read_settings


class Example(NamedTuple):
    weight: float
    age: int
    first: bool
    kind: str


GIVEN = dict(weight=1, age=3, first=True, kind="a")


def test_whole_numbers_do_for_real_ones():
    found = read_settings("test.trackers.x", Example, GIVEN)
    assert found == Example(1.0, 3, True, "a")
    assert isinstance(found.weight, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(weight="1"), "weight: expected float, got '1'"),
        (dict(weight=True), "weight: expected float, got True"),
        (dict(age=1.5), "age: expected int, got 1.5"),
        (dict(first=1), "first: expected bool, got 1"),
        (dict(weight=-0.5), "weight: expected a number of at least 0, got -0.5"),
        (dict(weight=float("nan")), "weight: expected a number of at least 0, got nan"),
        (dict(weight=float("inf")), "weight: expected a number of at least 0, got inf"),
        (dict(ages=1), r"ages: expected one of \['age', 'first', 'kind', 'weight'\]"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=rf"^test\.trackers\.x\.{message}"):
        read_settings("test.trackers.x", Example, GIVEN | change)


def test_a_missing_setting_is_named():
    given = {name: value for name, value in GIVEN.items() if name != "age"}
    with pytest.raises(ValueError, match=r"x\.age: expected a value, got only"):
        read_settings("x", Example, given)
