"""Names of a table read backwards."""

import pytest

from vis_jax.converters.backwards import OldNames, reverse_rules
from vis_jax.converters.rules import NameRule, Rename
from vis_jax.converters.transforms import same


def first(source, target, new):
    """The old name of a path by one rule; None if there is none."""
    ways = reverse_rules([NameRule(source, ((target, same),))])
    return ways[0].name(new) if ways else None


@pytest.mark.parametrize(
    ("source", "target", "new", "old"),
    [
        (r"a\.(\d)\.b", r"x/\1/y", "x/3/y", "a.3.b"),
        (r"a\.(\d)\.(\w+)", r"\2/x\1", "k/x3", "a.3.k"),
        (r"a\.(\d)\.b", r"x/\1/y", "x/z/y", None),
        # The first alternative is written, and so are optional parts.
        (r"a(?:\.0)?\.(b|c)", r"x/\1", "x/c", "a.0.c"),
        (r"(?:s|t)_(\d)", r"x\1", "x7", "s_7"),
        (r"e\.(?:|f\.)(\w+)", r"\1", "g", "e.g"),
        # Groups within groups, and one that comes twice.
        (r"((?:h\.)?m\.\d)\.c\.(k|b)", r"\1.n.\2", "h.m.1.n.b", "h.m.1.c.b"),
        (r"((a|b)\d)\.(\w)", r"\1/\3", "b2/z", "b2.z"),
        (r"a\.(\d)", r"x\1/y\1", "x1/y1", "a.1"),
        (r"a\.(\d)", r"x\1/y\1", "x1/y2", None),
        # The matched text cannot be recovered.
        (r"a\.\d", "x", "x", None),
        (r"a\.(\d)\.(\d)", r"x\1", "x1", None),
        (r"a.*b", "x", "x", None),
        (r"a|b", "x", "x", None),
    ],
)
def test_groups_give_the_old_name(source, target, new, old):
    assert first(source, target, new) == old


def test_renames_give_parts_and_leave_other_names():
    names = OldNames(
        [
            Rename(r"key\.(w|b)", r"qkv.\1", 1, 2),
            Rename(r"query\.(w|b)", r"qkv.\1", 0, 2),
            Rename(r"old\.(\d)", r"x.\1", alias=True),
            Rename(r"new\.(\d)", r"x.\1"),
        ]
    )
    assert names.of("qkv.b") == ("query.b", "key.b")
    assert names.of("x.4") == ("new.4",)
    assert names.of("other") == ("other",)
    # A file with this name would be read as one with another.
    with pytest.raises(ValueError, match="'new.1': no published name maps to it"):
        names.of("new.1")


def test_the_first_rule_that_reads_a_name_decides():
    names = OldNames([Rename(r"a\.1", "y"), Rename(r"a\.(\d)", r"x\1")])
    assert names.of("x2") == ("a.2",)
    assert names.of("x1") == ("x1",)  # a.1 becomes y
