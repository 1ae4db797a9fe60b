import numpy as np
import pytest

from vis_jax.converters.rules import NameRule, Rename, convert, rename
from vis_jax.converters.transforms import kernel, same

RULES = [
    NameRule(r"(\w+)\.weight", ((r"params/\1/kernel", kernel),)),
    NameRule(r"(\w+)\.bias", ((r"params/\1/bias", same),)),
    NameRule("counter", dropped="not a weight"),
]
SOURCE = {
    "fc.weight": np.arange(6.0).reshape(2, 3),
    "fc.bias": np.arange(2.0),
    "counter": np.array(1),
}
SHAPES = {"params/fc/kernel": (3, 2), "params/fc/bias": (2,)}


def test_every_tensor_is_used_or_dropped_and_every_target_filled():
    report = convert(SOURCE, SHAPES, RULES)
    np.testing.assert_array_equal(
        report.params["params/fc/kernel"], SOURCE["fc.weight"].T
    )
    assert report.used == {
        "fc.weight": ("params/fc/kernel",),
        "fc.bias": ("params/fc/bias",),
    }
    assert report.dropped == {"counter": "not a weight"}
    assert report.new == ()


def test_one_error_lists_all_misfits():
    source = {
        "fc.weight": np.zeros((2, 4)),
        "fc.bias": np.zeros(2),
        "fd.bias": np.zeros(2),
        "who": np.zeros(1),
    }
    shapes = {**SHAPES, "params/other/bias": (3,)}
    with pytest.raises(ValueError, match="5 misfits") as error:
        convert(source, shapes, RULES)
    text = str(error.value)
    assert "'who' [1]: no rule" in text
    assert "[2, 4] gives [4, 2], target 'params/fc/kernel' has [3, 2]" in text
    assert "target 'params/fd/bias' does not exist" in text
    assert "target 'params/other/bias': no source" in text
    assert "target 'params/fc/kernel': no source" in text


def test_a_target_filled_twice_is_an_error():
    rules = [*RULES, NameRule("twin", (("params/fc/bias", same),))]
    with pytest.raises(ValueError, match="'params/fc/bias': filled twice"):
        convert({**SOURCE, "twin": np.zeros(2)}, SHAPES, rules)


def test_declared_targets_stay_new():
    shapes = {**SHAPES, "params/head/bias": (3,)}
    report = convert(SOURCE, shapes, RULES, new=("params/head/.*",))
    assert report.new == ("params/head/bias",)
    for part in ("params/head", "head/.*", "head/bias"):
        with pytest.raises(ValueError, match="target 'params/head/bias': no source"):
            convert(SOURCE, shapes, RULES, new=(part,))


def test_a_fresh_rule_gives_way_to_another_shape():
    rules = [RULES[0]._replace(fresh=True), *RULES[1:]]
    shapes = {**SHAPES, "params/fc/kernel": (3, 5)}
    report = convert(SOURCE, shapes, rules)
    assert report.new == ("params/fc/kernel",)
    assert "gives [3, 2]" in report.dropped["fc.weight"]


def test_rename_joins_rows_in_order_and_keeps_other_names():
    renames = [
        Rename(r"(\w+)\.k", r"\1.qkv", 1, 3),
        Rename(r"(\w+)\.q", r"\1.qkv", 0, 3),
        Rename(r"(\w+)\.v", r"\1.qkv", 2, 3),
    ]
    source = {f"x.{name}": np.full((1, 2), i) for i, name in enumerate("vkq")}
    renamed = rename({**source, "other": np.zeros(1)}, renames)
    np.testing.assert_array_equal(renamed.tensors["x.qkv"][:, 0], [2, 1, 0])
    assert renamed.origins["x.qkv"] == ("x.q", "x.k", "x.v")
    assert renamed.origins["other"] == ("other",)
    with pytest.raises(ValueError, match="expected 3 parts"):
        rename({"x.q": np.zeros((1, 2))}, renames)


def test_two_names_for_the_same_are_an_error():
    renames = [Rename("old", "new")]
    with pytest.raises(ValueError, match="both stand for 'new'"):
        rename({"old": np.zeros(1), "new": np.zeros(1)}, renames)
