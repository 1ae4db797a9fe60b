"""The association block of IAI, against a slow form and by its properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.association import literal_frame_memory as literal
from tests.compiled import compiled
from vis_jax.association.frame_memory import (
    HybridAssociation,
    Settings,
    empty_memory,
    training_slots,
)
from vis_jax.params import flatten

HEIGHT, WIDTH, CHANNELS, IDS, STRIDE, SLOTS = 3, 5, 40, 6, 4, 4
SMALL = dict(dim=16, radius=1, mlp_dim=64, drop_path=0.4)


def _block(**switches):
    settings = Settings(**SMALL, **switches)
    return HybridAssociation(settings, CHANNELS, IDS + 1, STRIDE)


def _empty(module, videos, slots=SLOTS):
    return empty_memory(module.settings, videos, HEIGHT, WIDTH, slots=slots)


def _weights(module):
    """Random parameters by path: all are at work, unlike at the start of training."""
    features = jnp.zeros((1, HEIGHT, WIDTH, CHANNELS))
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), features, _empty(module, 1))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        # Attention has to be neither flat nor a choice of one.
        value = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) or 1)
        scale = "scale" in str(path)
        return (value + scale).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


def _clip(frames, videos=1, seed=1):
    """Features, id maps, whether something is new: [T, B, ..]."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(frames, videos, HEIGHT, WIDTH, CHANNELS))
    ids = rng.integers(0, IDS + 1, (frames, videos, HEIGHT * STRIDE, WIDTH * STRIDE))
    new = np.zeros((frames, videos), bool)
    new[3:4, ::2] = new[1:2, 1::2] = True
    return features.astype(np.float32), ids.astype(np.uint8), new


def _watch(module, params, clip, real, memory, key=None):
    """Fused features of all frames [T, B, ..], and the memories after each."""
    train, rngs = (False, {}) if key is None else (True, {"drop_path": key})

    def step(memory, frame):
        features, ids, new, real = frame
        run = functools.partial(module.apply, {"params": params}, rngs=rngs)
        fused, tokens = run(features, memory, train)
        memory = run(memory, tokens, ids, new=new, real=real, method="remember")
        return memory, (fused, memory)

    return jax.lax.scan(step, memory, (*map(jnp.asarray, clip), real))[1]


_run = compiled(_watch, static_argnums=0)


def watch(module, params, clip, real=None, *, memory=None, key=None):
    """The same, compiled; the paths are dropped if there is a key."""
    real = np.ones(clip[2].shape, bool) if real is None else real
    memory = _empty(module, clip[2].shape[1]) if memory is None else memory
    return _run(module, params, clip, real, memory, key)


BLOCK = _block()


@pytest.fixture(scope="module")
def params():
    return _weights(BLOCK)


def _literal(params, clip, **form):
    """The same of one video, by the slow form, in float64."""
    weights = {name: np.asarray(x, float) for name, x in flatten(params).items()}
    form, video, found = literal.Form(**form), literal.Video(), []
    for features, ids, new in zip(*(part[:, 0] for part in clip), strict=True):
        features = features.astype(float)
        found.append(literal.forward(weights, form, features, video))
        literal.advance(weights, form, features, video, ids=ids, new=bool(new))
    return np.array(found), video


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ({}, 3),
        ({"use_local": False}, 3),
        ({"use_global": False}, 3),
        ({"on_new": False}, 2),  # of the frames 0, 2 and 3, which has a new object
        ({"interval": 2}, 3),  # 0, 1 and 3
    ],
)
def test_frames_of_a_video_equal_the_slow_form(part, count):
    module = _block(**part)
    params, clip = _weights(module), _clip(5)
    found, memories = watch(module, params, clip)
    expected, video = _literal(params, clip, **part)
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-5)
    # The memories of the first frame come from its second run there.
    last = jax.tree.map(lambda x: x[-1, 0], memories)
    np.testing.assert_allclose(last.local_keys, video.before.keys, atol=2e-5)
    np.testing.assert_allclose(last.local_values, video.before.values, atol=2e-5)
    assert last.entered == len(video.everything) == count
    if module.settings.use_global:
        stored = np.array([frame.values for frame in video.everything])
        np.testing.assert_allclose(last.global_values[:count], stored, atol=2e-5)


def test_gradients_of_the_last_frame_are_those_of_the_slow_form(params):
    clip = _clip(3)
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(HEIGHT, WIDTH, CHANNELS))

    def loss(params, features):
        real, memory = jnp.ones((3, 1), bool), _empty(BLOCK, 1)
        fused, _ = _watch(BLOCK, params, (features, *clip[1:]), real, memory)
        return (fused[-1, 0] * weight.astype(np.float32)).sum()

    def slow(params, features):
        return (_literal(params, (features, *clip[1:]))[0][-1] * weight).sum()

    point = jax.tree.map(lambda x: x.astype(float), (params, clip[0]))
    gradients = compiled(jax.grad(loss, (0, 1)))(params, clip[0])
    # All parameters; the bank and the first frame, which act through memories alone.
    for group in ("", "id_bank", "features"):

        def direction(path, x, group=group):
            name = "/".join(str(part) for part in path)
            step = rng.normal(size=x.shape)
            if group == "features":
                step[1:] = 0
                return step if path[0].idx == 1 else 0 * step
            return step if path[0].idx == 0 and group in name else 0 * x

        step = jax.tree_util.tree_map_with_path(direction, point)
        ends = [
            slow(*jax.tree.map(lambda x, d, s=s: x + s * d, point, step))
            for s in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]) / 2e-5
        parts = jax.tree.map(lambda g, d: (g * d).sum(), gradients, step)
        found = sum(jax.tree.leaves(parts))
        assert abs(slope) > 1e-2, group
        np.testing.assert_allclose(found, slope, rtol=2e-3, err_msg=group)


def test_parts_come_in_the_order_of_the_source(params):
    clip = _clip(2)
    whole, _ = watch(BLOCK, params, clip)
    dim = SMALL["dim"]
    kernel = params["encoder_projector"]["kernel"][0, 0]
    projected = clip[0] @ kernel + params["encoder_projector"]["bias"]
    np.testing.assert_allclose(whole[..., :dim], projected, atol=1e-5)
    kernel = params["backbone_projector"]["kernel"][0, 0]
    classes = clip[0] @ kernel + params["backbone_projector"]["bias"]
    np.testing.assert_allclose(whole[..., 2 * dim :], classes, atol=1e-5)
    assert whole.shape[-1] == CHANNELS
    # Without the class projector its channels are gone, and nothing else changes.
    rest = {name: tree for name, tree in params.items() if name != "backbone_projector"}
    found, _ = watch(_block(use_cls_projector=False), rest, clip)
    np.testing.assert_array_equal(found, whole[..., : 2 * dim])


def test_positions_act_in_the_attention_within_the_frame_only(params):
    attention = params["block"]["self_attention"]
    silent = {**attention, "out": jax.tree.map(np.zeros_like, attention["out"])}
    block = {**params["block"], "self_attention": silent}
    features, *rest = _clip(5)
    for weights, equal in (({**params, "block": block}, True), (params, False)):
        there, back = (
            watch(BLOCK, weights, (x, *rest))[1].local_keys
            for x in (features, features[:, :, :, ::-1])
        )
        difference = np.abs(there - back[:, :, :, ::-1]).max()
        assert difference < 1e-5 if equal else difference > 1e-2


def test_the_order_of_slots_and_what_is_in_unused_ones_change_nothing(params):
    clip = _clip(5)
    _, memories = watch(BLOCK, params, clip)
    memory = jax.tree.map(lambda x: x[-1], memories)
    assert memory.entered[0] == 3
    other, real = _clip(5, seed=5), np.arange(5)[:, None] == 0
    expected, _ = watch(BLOCK, params, other, real, memory=memory)
    order = [2, 0, 1, 3]
    keys, values = memory.global_keys[:, order], memory.global_values[:, order]
    keys[:, 3], values[:, 3] = 1e3, -1e3
    moved = memory._replace(global_keys=keys, global_values=values)
    found, _ = watch(BLOCK, params, other, real, memory=moved)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    keys[:, 0] = 0
    moved = moved._replace(global_keys=keys)
    found, _ = watch(BLOCK, params, other, real, memory=moved)
    assert np.abs(found - expected).max() > 1e-3


REAL = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], bool)


def test_padded_frames_change_nothing(params):
    clip = _clip(5, videos=2)
    found, memories = watch(BLOCK, params, clip, REAL)

    def real_of(part):  # [3, B, ..]
        return np.stack([part[REAL[:, video], video] for video in (0, 1)], axis=1)

    expected, after = watch(BLOCK, params, tuple(map(real_of, clip)))
    np.testing.assert_allclose(real_of(found), expected, atol=1e-5)
    for ours, theirs in zip(memories, after, strict=True):
        np.testing.assert_allclose(real_of(ours), theirs, atol=1e-5)
        np.testing.assert_array_equal(ours[[1, 3], 0], ours[[0, 2], 0])
        np.testing.assert_array_equal(ours[4, 1], ours[3, 1])
    assert memories.entered[0, 1] == memories.step[0, 1] == 0


def test_videos_do_not_meet(params):
    clip, other = _clip(5, videos=2), _clip(5, videos=2, seed=6)
    before, _ = watch(BLOCK, params, clip, REAL)
    mixed = tuple(
        np.stack([b[:, 0], a[:, 1]], 1) for a, b in zip(clip, other, strict=True)
    )
    after, _ = watch(BLOCK, params, mixed, REAL)
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert np.abs(after[:, 0] - before[:, 0]).max() > 0.1


def test_paths_are_dropped_by_token_and_in_training_only(params):
    clip = tuple(np.repeat(part, 2, axis=1) for part in _clip(5))
    still, _ = watch(BLOCK, params, clip)
    found, _ = watch(BLOCK, params, clip, key=jax.random.key(0))
    # Both videos have the same draws.
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-5)
    dim = SMALL["dim"]
    change = np.abs(found - still)
    assert not change[..., :dim].any() and not change[..., 2 * dim :].any()
    assert change[..., dim : 2 * dim].max() > 0.1
    other, _ = watch(BLOCK, params, clip, key=jax.random.key(1))
    assert np.abs(other - found).max() > 0.1


def test_published_sizes():
    settings = Settings()

    def parts(ids):
        module = HybridAssociation(settings, 2048, ids + 1, 32)
        memory = empty_memory(settings, 1, 3, 5, slots=2)
        init = functools.partial(module.init, train=False)
        features = jnp.zeros((1, 3, 5, 2048))
        shapes = jax.eval_shape(init, jax.random.key(0), features, memory)["params"]
        return {
            name: sum(leaf.size for leaf in jax.tree.leaves(tree))
            for name, tree in shapes.items()
        }

    sizes = parts(20)
    assert sizes == {
        "encoder_projector": 524_544,
        "backbone_projector": 3_147_264,
        "block": 7_055_042 - 5_854_720,
        "id_bank": 5_854_720,
    }
    assert parts(25) == {**sizes, "id_bank": 5_854_720 + 1_393_920}


def test_initial_values_are_those_of_the_source():
    module = HybridAssociation(Settings(), 640, 3, 2)
    memory = empty_memory(module.settings, 1, 1, 1, slots=1)
    features = jnp.zeros((1, 1, 1, 640))
    init = compiled(functools.partial(module.init, train=False))
    key = jax.random.key(0)
    flat = flatten(init(key, features, memory)["params"])
    for name, bound in (
        ("block/local_attention/value_bias", 0.00833),
        ("block/local_attention/relative_bias", 0.0884),
        ("block/local_attention/relative_kernel", (6 / 578) ** 0.5),
        ("block/self_attention/query/kernel", (6 / 512) ** 0.5),
        ("block/self_attention/out/bias", 1 / 16),
        ("block/key/kernel", (6 / 512) ** 0.5),
        ("block/value/bias", 1 / 16),
        ("encoder_projector/kernel", 640**-0.5),
        ("backbone_projector/bias", 640**-0.5),
        ("id_bank/kernel", (6 / (9 * (3 + 256))) ** 0.5),
        ("id_bank/bias", 27**-0.5),
    ):
        np.testing.assert_allclose(np.abs(flat[name]).max(), bound, rtol=0.05)


def test_slots_in_training_hold_what_the_last_frame_reads():
    assert training_slots(5, 3) == 2 and training_slots(4, 3) == 2
    assert training_slots(3, 3) == 1 and training_slots(1, 3) == 1
    assert training_slots(7, 1) == 7 and training_slots(9, None) == 1


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (dict(use_local=False, use_global=False), "use_global"),
        (dict(dim=18), "dim"),
        (dict(dim=20, memory_heads=3), "memory_heads"),
    ],
)
def test_settings_that_do_not_fit_are_errors(fields, name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Settings(**fields)


def test_a_stage_without_channels_for_classes_is_an_error():
    module = HybridAssociation(Settings(), 512, 3, 32)
    memory = empty_memory(module.settings, 1, 2, 2, slots=1)
    with pytest.raises(ValueError, match=r"^model\.hab\.dim: .*half of 512"):
        jax.eval_shape(
            functools.partial(module.init, train=False),
            jax.random.key(0),
            jnp.zeros((1, 2, 2, 512)),
            memory,
        )
