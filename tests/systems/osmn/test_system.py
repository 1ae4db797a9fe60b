import re

import jax
import pytest

from tests.recipes import changed, recipe
from tests.systems.contract import check_padding, check_system, first_batch
from vis_jax.params import flatten
from vis_jax.settings import to_dict
from vis_jax.systems import SYSTEMS

osmn = SYSTEMS["osmn"]


def test_keeps_the_contract_of_systems():
    """The loss is blind to the detector, and the network finds objects again."""
    config = recipe("osmn_shapes")
    batch = first_batch(config)
    shapes = jax.eval_shape(osmn.build(config).init, jax.random.key(0), batch)
    detector = [p for p in flatten(shapes["params"]) if not p.startswith("osmn/")]
    assert detector
    checked = check_system(osmn.build, config, no_gradient=detector)
    check_padding(checked)
    assert checked.predictions.valid.any()


def test_all_trackers_and_both_of_the_network_can_link():
    config = recipe("osmn_shapes")
    names = set(osmn.trackers(config))
    assert {"osmn", "osmn_masks", "mask_track", "iou", "deep_sort", "seq"} == names
    assert set(to_dict(config.test.trackers)) == names


def test_a_tracker_without_its_network_is_an_error():
    with pytest.raises(ValueError, match=r"test.tracker: expected one of .* 'osmn'"):
        recipe("mask_track_rcnn_shapes", "debug", {"test.tracker": "osmn"})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.osmn.widths", (4, 4), "expected 5 numbers, got (4, 4)"),
        ("model.osmn.guide_side", 50, "expected a multiple of 32 pixels, got 50"),
        ("loss.objects", 0, "expected int, at least 1, got 0"),
        ("test.objects", 129, "expected at most model.rpn.proposals x classes, 128"),
    ],
)
def test_a_wrong_setting_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=re.escape(f"{field}: {message}")):
        osmn.build(changed(recipe("osmn_shapes"), {field: value}))
