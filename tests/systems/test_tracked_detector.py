import jax
import numpy as np
import pytest

from tests.compiled import compiled
from tests.evaluate.drawn import drawn_variables
from tests.recipes import recipe
from tests.systems.contract import first_batch
from tests.systems.traced import check_none, step_shapes
from vis_jax.params import flatten, match_rules
from vis_jax.structures import Clip, Detections
from vis_jax.systems import SYSTEMS
from vis_jax.systems.tracked_detector import on_canvas


def test_padding_of_detections_with_masks_over_the_canvas_has_zeros():
    valid = np.array([[True, False]])

    def ones(*shape):
        return np.ones((1, 2, *shape), np.float32)

    found = Detections(
        boxes=ones(4),
        scores=valid.astype(np.float32),
        labels=np.array([[0, 3]], np.int32),
        valid=valid,
        embeds=ones(5),
        descriptors=ones(6),
        mask_logits=ones(2, 3),
    )
    on = compiled(on_canvas, static_argnames="canvas")(found, canvas=(8, 12))
    for name in ("boxes", "embeds", "descriptors", "mask_logits"):
        value = getattr(on, name)
        np.testing.assert_array_equal(value[0, 0], getattr(found, name)[0, 0])
        assert not value[0, 1].any(), name
    np.testing.assert_array_equal(on.mask_boxes, [[[0, 0, 12, 8], [0, 0, 0, 0]]])


# Detectors whose track head is trained alone.
_ALONE = ("yolact", "condinst")
_HEAD = {"model.track_head.width": 8}


@pytest.mark.parametrize(
    "name", [f"{kind}_{size}" for kind in _ALONE for size in ("r50", "shapes")]
)
def test_the_recipe_of_a_track_head_trains_it_alone_on_pairs(name):
    run = recipe(name, "track")
    assert (run.data.frames, run.loss.detector) == (2, False)
    assert run.test.tracker == "mask_track"
    assert run.init_fresh == ("track_head/.*",)
    batch = first_batch(recipe(name, "debug"))
    init = SYSTEMS[run.system].build(run).init
    shapes = jax.eval_shape(init, jax.random.key(0), batch)
    rates = flatten(match_rules(shapes["params"], run.optimizer.rates))
    assert {path.split("/")[0] for path, rate in rates.items() if rate} == {
        "track_head"
    }


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("yolact", {"model.dropout": 0.5}),
        ("condinst", {"model.backbone.norm": "batch"}),
    ],
)
def test_a_track_head_alone_leaves_the_detector_as_it_is(name, changes):
    """Weights and statistics: it sees frames as at test time, without dropout."""
    config = recipe(f"{name}_r50", "track,debug", changes)
    assert config.model.backbone.norm == "batch"
    system, batch = SYSTEMS[name].build(config), first_batch(config)
    variables = drawn_variables(system, config, 0)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])

    def loss(params, others, batch):
        return system.loss({**others, "params": params}, batch, jax.random.key(1))

    run = compiled(jax.value_and_grad(loss, has_aux=True))
    params = variables.pop("params")
    (value, aux), gradient = run(params, variables, batch)
    assert set(aux.terms) == {"track"}
    np.testing.assert_allclose(aux.terms["track"], value)
    assert value > 0
    assert aux.batch_stats == {}
    reached = {path for path, leaf in flatten(gradient).items() if leaf.any()}
    assert reached == {
        path for path in flatten(params) if path.startswith("track_head")
    }


@pytest.mark.parametrize("name", _ALONE)
def test_a_tracker_of_embeddings_is_an_error_without_a_head(name):
    config = recipe(f"{name}_shapes", "debug", {"test.tracker": "mask_track"})
    batch = first_batch(config)
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    with pytest.raises(ValueError, match="expected a detector with a track head"):
        SYSTEMS[name].build(config).start(clip)


@pytest.mark.parametrize("tracker", ["deep_sort", "seq", "mask_track"])
@pytest.mark.parametrize("name", _ALONE)
def test_other_trackers_link_it(name, tracker):
    head = _HEAD if tracker == "mask_track" else {}
    config = recipe(f"{name}_shapes", "debug", {"test.tracker": tracker, **head})
    shape = (config.data.frames, config.test.objects)
    system = SYSTEMS[name].build(config)
    assert step_shapes(system, config).slots.shape == shape


@pytest.mark.parametrize("changes", [{}, _HEAD])
@pytest.mark.parametrize("name", _ALONE)
def test_detections_have_the_shapes_of_none(name, changes):
    check_none(name, recipe(f"{name}_shapes", "debug", changes))
