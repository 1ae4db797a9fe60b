import re

import jax
import pytest

from tests.systems.contract import check_system, first_batch
from tests.tiny import tiny_config
from vis_jax.params import flatten
from vis_jax.systems import SYSTEMS, trackers_of

build = SYSTEMS["osmn"]


@pytest.mark.slow
def test_keeps_the_contract_of_systems():
    """The loss is blind to the detector, and the network finds objects again."""
    config = tiny_config("osmn_shapes")
    batch = first_batch(config)
    shapes = jax.eval_shape(build(config).init, jax.random.key(0), batch)
    detector = [p for p in flatten(shapes["params"]) if not p.startswith("osmn/")]
    assert detector
    found = check_system(build, config, no_gradient=detector).predictions
    assert found.valid.any()


def test_all_trackers_and_both_of_the_network_can_link():
    config = tiny_config("osmn_shapes")
    names = set(trackers_of(config))
    assert {"osmn", "osmn_masks", "mask_track", "iou", "deep_sort", "seq"} == names
    assert set(config.test.trackers) == names


def test_a_tracker_without_its_network_is_an_error():
    config = tiny_config("osmn_shapes")
    config.system = "mask_track_rcnn"
    del config.model["osmn"]
    with pytest.raises(ValueError, match=r"test.tracker: expected one of .* 'osmn'"):
        SYSTEMS["mask_track_rcnn"](config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.osmn.widths", (4, 4), "expected 5 numbers, got (4, 4)"),
        ("model.osmn.guide_side", 50, "expected a multiple of 32 pixels, got 50"),
        ("loss.objects", 0, "expected at least 1, got 0"),
        ("test.objects", 129, "expected 1 .. 128, got 129"),  # of the detector
    ],
)
def test_a_wrong_setting_is_an_error(field, value, message):
    config = tiny_config("osmn_shapes")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=re.escape(f"{field}: {message}")):
        build(config)
