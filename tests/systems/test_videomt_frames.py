"""State that passes from frame to frame."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiled import compiled
from tests.recipes import changed, recipe
from tests.systems.small_videomt import LEAST, frames_of, made
from vis_jax.association.query_propagation import QueryPropagation
from vis_jax.structures import Clip
from vis_jax.systems.videomt import build, build_model
from vis_jax.systems.videomt_loss import (
    look_and_carry,
)
from vis_jax.systems.videomt_model import Model, call, content_of
from vis_jax.systems.videomt_settings import VideoTestSettings
from vis_jax.systems.videomt_video import (
    State,
    best_pairs,
    cells_inside,
    empty_state,
    probs_by_quality,
    queries_with_masks,
    track_probs,
    updated,
)


def _with(variables, path, change):
    """Variables with one parameter changed."""
    variables = jax.tree.map(np.array, variables)
    *parents, name = path.split("/")
    node = functools.reduce(lambda tree, key: tree[key], parents, variables["params"])
    node[name] = change(node[name])
    return variables


def test_frames_do_not_see_later_ones_and_padding_passes_nothing():
    _, variables, batch, run = made()
    valid = np.ones((1, 4), bool)
    logits, masks, entered = run(variables, batch.images, valid)
    other = batch.images.copy()
    other[:, 2] = 255 - other[:, 2]
    changed_logits, changed_masks, _ = run(variables, other, valid)
    for a, b in ((logits, changed_logits), (masks, changed_masks)):
        np.testing.assert_array_equal(a[:, :2], b[:, :2])
        for t in (2, 3):
            assert np.abs(a[:, t] - b[:, t]).max() > 1e-3
    padded = valid & (np.arange(4) < 2)
    short = run(variables, batch.images, padded)[2]
    np.testing.assert_array_equal(short, run(variables, other, padded)[2])
    assert np.abs(short - entered).max() > 1e-3


@pytest.mark.parametrize("propagation", ["fusion", "gru"])
def test_queries_that_change_places_change_all_rows(propagation):
    _, variables, batch, run = made(propagation)
    valid, order = np.ones((1, 4), bool), np.array([3, 0, 5, 1, 2, 4])
    logits, masks, _ = run(variables, batch.images, valid)
    permuted = _with(variables, "query", lambda x: x[order])
    found = run(permuted, batch.images, valid)
    np.testing.assert_allclose(found[0], logits[..., order, :], atol=1e-4)
    np.testing.assert_allclose(found[1], masks[..., order, :, :], atol=1e-3)


def test_without_an_updater_frames_are_independent():
    _, variables, batch, run = made()
    valid = np.ones((1, 4), bool)
    logits = run(variables, batch.images, valid)[0]
    still = np.repeat(batch.images[:, :1], 4, axis=1)
    moving = run(variables, still, valid)[0]
    assert np.abs(moving[:, 0] - moving[:, 1]).max() > 1e-3
    for leaf in ("kernel", "bias"):
        path = f"propagation/updater/{leaf}"
        variables = _with(variables, path, np.zeros_like)
    frozen = run(variables, still, valid)[0]
    for t in (1, 2, 3):
        np.testing.assert_allclose(frozen[:, t], frozen[:, 0], atol=1e-5)
    np.testing.assert_allclose(frozen[:, 0], logits[:, 0], atol=1e-5)


def test_the_gated_unit_is_that_of_pytorch():
    rng = np.random.default_rng(0)
    found, entered = rng.normal(size=(2, 1, 3, 4)).astype(np.float32)
    weights = {
        name: {
            "kernel": rng.normal(size=(4, 12)).astype(np.float32),
            "bias": rng.normal(size=12).astype(np.float32),
        }
        for name in ("input", "hidden")
    }
    learned = np.zeros((3, 4), np.float32)

    @compiled
    def run(weights):
        params = {"params": {"gru": weights}}
        arrays = (jnp.asarray(x) for x in (found, entered, learned))
        return QueryPropagation("gru").apply(params, *arrays)

    def gates(name, x):
        return np.split(x @ weights[name]["kernel"] + weights[name]["bias"], 3, -1)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    (r, u, n), (hr, hu, hn) = gates("input", found), gates("hidden", entered)
    u = sigmoid(u + hu)
    expected = (1 - u) * np.tanh(n + sigmoid(r + hr) * hn) + u * entered
    np.testing.assert_allclose(run(weights), expected, atol=1e-5)
    weights["input"]["bias"][4:8] = 1e3  # nothing is updated
    np.testing.assert_allclose(run(weights), entered, atol=1e-6)


def test_the_linear_layer_can_begin_as_the_identity():
    found, learned = np.random.default_rng(0).normal(size=(2, 1, 3, 4))
    found, learned = found.astype(np.float32), learned[0].astype(np.float32)

    @compiled
    def run(found, learned):
        layer = QueryPropagation("fusion", identity=True)
        return layer.init_with_output(jax.random.key(0), found, found, learned)[0]

    np.testing.assert_allclose(run(found, learned), found + learned, atol=1e-6)


def test_a_late_object_keeps_its_score_where_present_frames_count():
    sure, none = np.float32([4, 0, 0]), np.float32([0, 0, 4])
    logits = np.stack([(sure + 3 * none) / 4, none])
    state = State(
        np.zeros((2, 4), np.float32), np.True_, logits, np.stack([sure, 0 * sure]),
        np.int32(4), np.int32([1, 0]),
    )  # fmt: skip

    def probs(**fields):
        settings = VideoTestSettings(**fields)
        return compiled(lambda state: track_probs(state, settings))(state)

    whole, present = probs(), probs(score="present")
    softmax = np.exp(sure) / np.exp(sure).sum()
    np.testing.assert_allclose(present[0], softmax[:2], rtol=1e-5)
    assert whole[0, 0] < 0.2
    np.testing.assert_array_equal(whole[1], present[1])
    short = probs(least_frames=2)
    assert not short.any()


def test_means_over_ten_thousand_frames_keep_their_digits():
    rng = np.random.default_rng(0)
    logits = (3 + rng.normal(size=(10_000, 3, 4))).astype(np.float32)
    logits[:, 2, -1] = 9  # never an object
    settings = recipe("videomt_shapes", "debug", LEAST | {"model.queries": 3})
    begin = empty_state(settings)._replace(
        logits=np.zeros((3, 4), np.float32), logits_present=np.zeros((3, 4), np.float32)
    )

    @compiled
    def run(begin, logits):
        def frame(state, now):
            return updated(state, now, state.entered), None

        return jax.lax.scan(frame, begin, logits)[0]

    state = run(begin, logits)
    exact = logits.astype(np.float64)
    present = exact.argmax(axis=-1) < 3
    assert state.frames == 10_000
    np.testing.assert_array_equal(state.frames_present, present.sum(axis=0))
    np.testing.assert_allclose(state.logits, exact.mean(axis=0), atol=1e-5)
    for query in range(2):
        mean = exact[present[:, query], query].mean(axis=0)
        np.testing.assert_allclose(state.logits_present[query], mean, atol=1e-5)
    assert not state.logits_present[2].any()


def test_pairs_are_chosen_before_masks_weight_them():
    probs = np.float32([[0.4, 0.1, 0.3], [0.2, 0.5, 0.0]])
    found = compiled(best_pairs, static_argnums=1)(probs, 3)
    np.testing.assert_array_equal(found, np.float32([[0.4, 0, 0.3], [0, 0.5, 0]]))


def test_sure_masks_have_a_better_score():
    rng = np.random.default_rng(0)
    probs = rng.uniform(size=(4, 3)).astype(np.float32)
    masks = rng.normal(size=(2, 2, 4, 5)).astype(np.float32)
    masks[:, 1] = -1  # empty
    rows, inside = np.array([2, 0], np.int32), np.ones((2, 4, 5), bool)
    inside[1, 2:] = False
    found = compiled(probs_by_quality)(probs, rows, masks, inside)
    sure = masks[:, 0][inside & (masks[:, 0] > 0)]
    expected = np.zeros_like(probs)
    expected[2] = probs[2] * (1 / (1 + np.exp(-sure))).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_whole_video_has_the_masks_of_its_best_tracks():
    settings, variables, batch, run = made()
    system = build(changed(settings, {"test.top": 2, "test.chunk": 3}))
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    step = compiled(lambda v, clip: system.step(v, system.start(clip), clip))
    state, found = step(variables, clip)
    logits, masks, entered = run(variables, batch.images, batch.frame_valid)
    mean = logits[0, :, 0].mean(axis=0)
    probs = np.exp(mean) / np.exp(mean).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.class_probs, probs[:, :-1], atol=1e-5)
    best = np.argsort(-probs[:, :-1].max(-1))[:2]
    np.testing.assert_array_equal(found.slots, np.stack([best] * 4))
    np.testing.assert_allclose(found.mask_logits, masks[0, :, 0][:, best], atol=1e-3)
    np.testing.assert_allclose(state.entered, entered[0], atol=1e-4)
    short = clip._replace(frame_valid=np.arange(4) < 2)
    other = short._replace(images=clip.images[[0, 1, 3, 2]])
    left = step(variables, short)[0]
    jax.tree.map(np.testing.assert_array_equal, left, step(variables, other)[0])
    assert left.frames == 2
    np.testing.assert_allclose(left.logits, logits[0, :2, 0].mean(axis=0), atol=1e-5)
    system = build(changed(settings, {"test.top": 2, "test.quality": True}))
    weighted = compiled(lambda v, clip: system.step(v, system.start(clip), clip)[1])
    found = weighted(variables, clip).class_probs
    assert (found[best] < probs[best, :-1]).all()
    pairs = np.sort(probs[:, :-1], axis=None)[-2:]  # as many as `test.top`
    np.testing.assert_array_equal(found > 0, probs[:, :-1] >= pairs[0])


def test_an_object_that_is_gone_keeps_its_mask_clip_by_clip():
    mean = np.zeros((4, 3), np.float32)
    mean[3, 1], mean[:3, 2] = 6, 6  # query 3 was an object; no object is last
    state = empty_state(recipe("videomt_shapes", "debug", LEAST))
    present = jnp.array([1, 1, 1, 9], jnp.int32)
    state = state._replace(logits=jnp.asarray(mean), frames_present=present)
    logits = np.zeros((4, 3), np.float32)
    logits[:, 2], logits[0, 0] = 8, 9  # query 0 is one now
    rows = queries_with_masks(state, jnp.asarray(logits), VideoTestSettings(), 2)
    assert set(rows.tolist()) == {0, 3}


def test_cells_that_a_frame_reaches_in_part_are_inside():
    images = np.zeros((3, 32, 48, 3), np.uint8)
    clip = Clip(images, np.array([True, True, False]), np.int32([30, 41]))
    inside = cells_inside(clip, (8, 12))
    assert inside[:2, :8, :11].all() and not inside[:, :, 11:].any()
    assert not inside[2].any()


def test_a_frame_is_padded_to_multiples_of_32_pixels():
    settings = recipe("videomt_shapes", "debug", LEAST)
    sizes = np.int32([[1, 33], [32, 64], [63, 96], [120, 97]])
    found = content_of(settings, jnp.asarray(sizes), (6, 7))
    np.testing.assert_array_equal(found, [[2, 4], [2, 4], [4, 6], [6, 7]])


@pytest.mark.parametrize(("form", "patch"), [("dinov2", 14), ("dinov3", 16)])
def test_a_larger_canvas_changes_nothing(form, patch):
    """2 x 4 patches of 4 x 6 are seen as the 2 x 4 alone."""
    changes = {"model.backbone.form": form, "model.backbone.patch": patch}
    changes["model.num_classes"] = 2
    settings = recipe("videomt_shapes", "debug", LEAST | changes)
    model = build_model(settings)
    pixels = np.random.default_rng(0).normal(size=(2, 1, 4 * patch, 6 * patch, 3))
    small, large = pixels.astype(np.float32)
    small = small[:, : 2 * patch, : 4 * patch]
    large[:, : 2 * patch, : 4 * patch] = small

    def run(variables, images, grid, sizes):
        content = content_of(settings, sizes, grid)
        tokens = call(model, variables, Model.encode, images, False, None, content)
        queries = call(model, variables, Model.first, 1)
        return look_and_carry(model, variables, queries, tokens, grid, content=content)[
            1:
        ]

    @compiled
    def both(key, small, large, sizes):
        variables = model.init(key, small)
        alone = run(variables, small, (2, 4), sizes)
        return alone, run(variables, large, (4, 6), sizes)

    sizes = np.array([[2 * patch - 2, 4 * patch - 3]], np.int32)
    (alone, after), (found, later) = both(jax.random.key(0), small, large, sizes)
    np.testing.assert_allclose(found.class_logits, alone.class_logits, atol=1e-4)
    height, width = alone.mask_logits.shape[2:]
    assert (height, width) == ((4, 8) if patch == 14 else (8, 16))
    masks = found.mask_logits[..., :height, :width]
    np.testing.assert_allclose(masks, alone.mask_logits, atol=1e-3)
    np.testing.assert_allclose(later, after, atol=1e-4)


def test_a_larger_canvas_does_not_change_the_loss():
    """The same points of 2 x 4 patches alone, and of 2 x 4 among 4 x 6.

    Queries attend inside their masks only, as early in the training of images.
    """
    settings, variables, large, _ = made()
    masked = {"model.masked_attention": dict(start=(5,), end=(9,))}
    settings = changed(settings, {"loss.aux_last": False, **masked})
    large = frames_of(large, slice(1))
    height, width = 32, 64
    masks = large.masks.copy()
    masks[..., height:, :] = masks[..., width:] = False
    large = large._replace(masks=masks, sizes=np.int32([[height, width]]))
    small = large._replace(
        images=large.images[:, :, :height, :width],
        masks=masks[..., :height, :width],
    )
    loss = compiled(lambda *x: build(settings).loss(*x)[1].terms)
    key = jax.random.key(2)
    alone, found = (loss(variables, batch, key) for batch in (small, large))
    for name, term in alone.items():
        np.testing.assert_allclose(found[name], term, rtol=1e-4, err_msg=name)


def test_padding_is_not_in_the_statistics_of_a_decoder_of_its_own():
    decoder = dict(kind="own", blocks=1, levels=(0, 1))
    settings = recipe("videomt_shapes", "debug", LEAST | {"model.decoder": decoder})
    model = build_model(settings)
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)

    @compiled
    def both(key, images):
        variables = model.init(key, images)

        def of(images, valid):
            content = jnp.tile(jnp.array([[2, 4]], jnp.int32), (len(images), 1))
            return model.apply(
                variables, images, True, valid, content,
                method=Model.encode, mutable=["batch_stats"],
            )[1]  # fmt: skip

        # The second frame is padding, too.
        return of(images[:1, :32, :64], None), of(images, jnp.array([True, False]))

    alone, padded = both(jax.random.key(0), images)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
        padded, alone,
    )  # fmt: skip
