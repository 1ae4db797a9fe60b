import functools

import jax
import numpy as np

from tests.recipes import recipe
from tests.systems.contract import (
    Checked,
    check_frame_by_frame,
    check_learns,
    check_statistics,
    check_system,
)
from tests.systems.traced import check_dtypes
from vis_jax.params import flatten
from vis_jax.structures import Clip
from vis_jax.systems import SYSTEMS
from vis_jax.systems.iai import build
from vis_jax.training.dry_run import batch_shapes

_NO_GRADIENT = {
    # On the coarsest levels no location is assigned an object of the debug size.
    *(f"detector/head/scale{level}" for level in (5, 6, 7)),
    # Group norm makes zeros of the coarsest level: one cell, groups of one channel.
    *(f"detector/fpn/output7/{leaf}" for leaf in ("kernel", "bias")),
}


def _config(changes=None, name="iai_condinst_r50"):
    return recipe(name, "debug", changes)


@functools.cache
def _checked() -> Checked:
    """Three frames, with batch norm in the backbone; all that is found is shown.

    No paths are dropped and all positives train masks, so that a loss is not random.
    """
    changes = {
        "data.frames": 3, "model.backbone.norm": "batch", "test.score": 0.0,
        "test.id_score": 0.0, "test.least": 0.0, "model.hab.drop_path": 0.0,
        "loss.positives": 100,
    }  # fmt: skip
    return check_system(build, _config(changes), no_gradient=_NO_GRADIENT)


def test_keeps_the_contract_of_systems():
    found = _checked().predictions
    assert found.mask_logits.shape[1:] == (4, 16, 24)
    assert found.valid.shape == (5,)
    assert (found.slots >= 0).any()


def test_frame_by_frame_equals_the_whole_video():
    check_frame_by_frame(_checked())


def test_updates_bring_the_loss_down():
    check_learns(_checked(), updates=10, rate=0.3, mean_of=3)


def test_statistics_of_the_batch_are_handed_on_without_padded_frames():
    check_statistics(_checked(), {"backbone", "detector"})


def test_the_mean_is_over_frames_that_are_there():
    """A frame by itself has the loss it has before two frames of padding."""
    checked = _checked()
    params, batch = checked.variables["params"], checked.batch
    frames = batch.frame_valid.shape[1]
    first = batch._replace(frame_valid=batch.frame_valid & (np.arange(frames) == 0))
    (alone, _), _ = checked.loss_and_gradient(params, first)
    same = first._replace(
        images=np.repeat(batch.images[:, :1], frames, axis=1),
        frame_valid=np.tile(np.arange(frames) == 1, (len(batch.images), 1)),
        masks=np.repeat(batch.masks[:, :, :1], frames, axis=2),
        boxes=np.repeat(batch.boxes[:, :, :1], frames, axis=2),
        present=np.repeat(batch.present[:, :, :1], frames, axis=2),
    )
    # The memory is empty still, as padding before it is not remembered.
    (later, _), _ = checked.loss_and_gradient(params, same)
    np.testing.assert_allclose(alone, later, rtol=1e-4)


def test_frames_of_padding_leave_the_state_as_it_is():
    checked = _checked()
    images, frame_valid, *rest = checked.clip
    clip = Clip(images[:1], frame_valid[:1], *rest)
    state, before = checked.step(checked.variables, checked.system.start(clip), clip)
    none = clip._replace(frame_valid=np.zeros_like(clip.frame_valid))
    after, found = checked.step(checked.variables, state, none)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((state, after)))
    assert (found.slots == -1).all()
    np.testing.assert_array_equal(found.class_probs, before.class_probs)


# Prefixes of parameter paths.
_PARTS = {
    "backbone": "backbone/",
    "neck": "detector/fpn/",
    "head": "detector/",
    "encoder": "hab/encoder_projector/",
    "classes": "hab/backbone_projector/",
    "memories": "hab/",
}


def _parts(arg):
    """Numbers of parameters of the published network."""
    method, model = SYSTEMS["iai"], recipe("iai_condinst_r50", arg).model
    init = method.build(method.settings(model=model)).init
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    shapes = flatten(dict(jax.eval_shape(init, jax.random.key(0), batch))["params"])
    parts = dict.fromkeys(_PARTS, 0)
    for path, leaf in shapes.items():
        part = next(name for name, start in _PARTS.items() if path.startswith(start))
        parts[part] += int(np.prod(leaf.shape))
    return parts


def test_parameters_of_the_published_network():
    parts = _parts(None)
    assert parts == {
        "backbone": 23_508_032, "neck": 3_868_672, "head": 7_329_783,
        "encoder": 524_544, "classes": 3_147_264, "memories": 7_055_042,
    }  # fmt: skip
    assert sum(parts.values()) == 45_433_337
    more = sum(_parts("dataset=ytvis2021").values()) - 45_433_337
    assert more == 1_405_445


def test_bfloat16_computes_without_hidden_promotion():
    check_dtypes(build, _config({"compute_dtype": "bfloat16"}))
