"""Checks the contract of systems; see `vis_jax/systems/system.py`."""

import functools
import tempfile
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import numpy as np

from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.numpy_pipeline import train_batches
from data_pipeline.schema import check_batch
from vis_jax.commands.run_settings import RunSettings
from vis_jax.params import flatten, unflatten
from vis_jax.structures import Batch, Clip, Predictions, Window
from vis_jax.systems.system import RETRAIN, System
from vis_jax.training.checkpoint import load_variables
from vis_jax.training.weights_file import write_weights


class Checked(NamedTuple):
    """Objects made by the checks, for further tests of a system."""

    system: System
    variables: dict
    batch: Batch
    clip: Clip
    predictions: Predictions
    step: Callable  # `system.step`, compiled once for each length of a clip
    # Compiled (params, batch) -> ((loss, LossAux), gradient), with a fixed random key.
    loss_and_gradient: Callable


def check_frame_by_frame(checked: Checked) -> None:
    """Checks that an online system predicts the same frame by frame and all at once.

    And that a padding frame does not change the predictions of those before it.
    """
    clip, whole = checked.clip, checked.predictions
    assert len(clip.images) > 1  # otherwise none is before the padding
    state = found = None
    for t in range(len(clip.images)):
        one = Clip(clip.images[t : t + 1], clip.frame_valid[t : t + 1], clip.size)
        state = jax.jit(checked.system.start)(one) if state is None else state
        state, found = jax.device_get(checked.step(checked.variables, state, one))
        if t == len(clip.images) - 2:
            real = np.arange(len(clip.images)) <= t
            images = np.where(real[:, None, None, None], clip.images, 255 - clip.images)
            padded = clip._replace(images=images, frame_valid=clip.frame_valid & real)
            boxes = None if whole.mask_boxes is None else whole.mask_boxes[real]
            expected = whole._replace(
                slots=whole.slots[real],
                mask_logits=whole.mask_logits[real],
                mask_boxes=boxes,
                class_probs=found.class_probs,
            )
            _check_padded(expected, _first_step(checked, padded), 1)
        np.testing.assert_array_equal(found.slots[0], whole.slots[t])
        if whole.mask_boxes is None:
            near = functools.partial(np.testing.assert_allclose, atol=1e-3)
            near(found.mask_logits[0], whole.mask_logits[t])
        else:
            near = functools.partial(np.testing.assert_allclose, atol=1e-2)
            near(found.mask_boxes[0], whole.mask_boxes[t])
    np.testing.assert_allclose(found.class_probs, whole.class_probs, atol=1e-5)


def check_padding(checked: Checked) -> None:
    """Checks that a padding frame does not change the predictions of a clip.

    For systems that do not run frame by frame; see `check_frame_by_frame`.
    """
    clip = checked.clip
    padded = clip._replace(
        images=np.concatenate([clip.images, 255 - clip.images[:1]]),
        frame_valid=np.append(clip.frame_valid, False),
    )
    _check_padded(checked.predictions, _first_step(checked, padded), 1)


def _first_step(checked: Checked, clip: Clip) -> Predictions:
    state = jax.jit(checked.system.start)(clip)
    return jax.device_get(checked.step(checked.variables, state, clip))[1]


def _check_padded(found: Predictions, other: Predictions, padding: int) -> None:
    """Checks that a clip has the same predictions before frames of padding."""
    rows = len(found.slots)
    assert len(other.slots) == rows + padding
    np.testing.assert_allclose(found.class_probs, other.class_probs, atol=1e-4)
    np.testing.assert_array_equal(found.slots, other.slots[:rows])
    shown = found.slots >= 0
    pairs = [(found.mask_logits, other.mask_logits)]
    if found.mask_boxes is not None:
        assert (other.slots[rows:] == -1).all()
        pairs.append((found.mask_boxes, other.mask_boxes))
    for ours, theirs in pairs:
        np.testing.assert_allclose(
            ours[shown], theirs[:rows][shown], atol=1e-2, rtol=1e-3
        )


def check_learns(checked: Checked, *, updates: int, rate: float, mean_of: int) -> None:
    """Checks that updates on one batch reduce the loss by at least a fifth.

    Args:
      checked: the system.
      updates: number of updates.
      rate: norm of an update; smaller if the gradient's norm is below 1.
      mean_of: number of losses to average at the start and at the end.
    """
    params, losses = checked.variables["params"], []
    for _ in range(updates):
        (loss, _), gradient = checked.loss_and_gradient(params, checked.batch)
        losses.append(float(loss))
        leaves = jax.tree.leaves(gradient)
        length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves))
        scale = np.float32(rate / max(length, 1.0))
        params = jax.tree.map(lambda p, g, r=scale: p - r * g, params, gradient)
    assert np.mean(losses[-mean_of:]) < 0.8 * np.mean(losses[:mean_of]), losses


def check_statistics(checked: Checked, parts: Collection[str]) -> None:
    """Checks that an update changes all batch-norm statistics, regardless of padding.

    Args:
      checked: the system.
      parts: parts of the model with statistics.
    """
    params, batch = checked.variables["params"], checked.batch
    first = np.arange(batch.frame_valid.shape[1]) == 0
    batch = batch._replace(frame_valid=batch.frame_valid & first)
    (_, aux), _ = checked.loss_and_gradient(params, batch)
    before = checked.variables["batch_stats"]
    assert jax.tree.structure(aux.batch_stats) == jax.tree.structure(before)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), aux.batch_stats, before)
    assert all(jax.tree.leaves(moved))
    assert set(moved) == set(parts)
    (_, junk), _ = checked.loss_and_gradient(params, with_junk(batch))
    jax.tree.map(np.testing.assert_array_equal, aux.batch_stats, junk.batch_stats)


def first_batch(config: RunSettings) -> Batch:
    """Returns the first batch of a config with a synthetic data set."""
    batches = train_batches(
        make_dataset(config.data), config.data, seed=config.seed, start_step=0
    )
    arrays = next(batches)
    check_batch(arrays)
    return Batch(**arrays)


def check_system(
    build: Callable[[RunSettings], System],
    config: RunSettings,
    *,
    no_gradient: Collection[str] = (),
    boxes_inside: bool = True,
    seed: int = 0,
) -> Checked:
    """Checks all four functions of a system on the data of a small config.

    Whether padding frames change predictions is left to `check_frame_by_frame`, for
    online systems, and `check_padding`.

    Args:
      build: makes the system of a config.
      config: small enough to compile in seconds, with at least two instance slots.
      no_gradient: paths of parameters that need no gradient; callers state the reason.
      boxes_inside: mask boxes lie inside the content; otherwise they only overlap it.
      seed: of the parameters; with some, a part may never decide anything.
    """
    system, batch = build(config), first_batch(config)
    limit = system.limit.removesuffix(RETRAIN)
    assert functools.reduce(getattr, limit.split("."), config) > 0
    variables = _check_init(system, batch, seed)
    _check_file(variables)
    loss_and_gradient = _loss_and_gradient(system, variables)
    _check_loss(loss_and_gradient, variables, batch, no_gradient)
    step = jax.jit(system.step)
    clip, predictions = _check_step(system, step, variables, batch, boxes_inside)
    return Checked(system, variables, batch, clip, predictions, step, loss_and_gradient)


def _check_file(variables: dict) -> None:
    """Checks that a weights file restores every variable bit by bit."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(folder, variables)
        found, expected = flatten(load_variables(folder)), flatten(variables)
    assert found.keys() == expected.keys()
    for path, value in found.items():
        assert value.dtype == expected[path].dtype, path
        assert value.tobytes() == expected[path].tobytes(), path


def _check_init(system: System, batch: Batch, seed: int) -> dict:
    """Checks that parameters are finite float32 and depend on the key alone.

    Returns them with noise, as values initialised to zero can hide a gradient.
    """
    keys = [jax.random.key(number) for number in (seed, seed, seed + 1)]
    init = jax.jit(lambda key, batch: dict(system.init(key, batch)))
    drawn = (jax.device_get(init(key, batch)) for key in keys)
    first, same, other = map(flatten, drawn)
    changed = False
    for path, value in first.items():
        assert value.dtype == np.float32, path
        assert np.isfinite(value).all(), path
        np.testing.assert_array_equal(value, same[path], err_msg=path)
        changed |= np.any(value != other[path])
    assert changed
    rng = np.random.default_rng(0)
    return unflatten({path: _noisy(value, rng) for path, value in first.items()})


def _noisy(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=value.shape).astype(np.float32)
    return value + np.float32(0.05) * noise


def _loss_and_gradient(system, variables) -> Callable:
    def loss_of(params, batch):
        value, aux = system.loss(
            variables | {"params": params}, batch, jax.random.key(1)
        )
        return value, aux

    compiled = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    return lambda params, batch: jax.device_get(compiled(params, batch))


def _check_loss(compiled, variables, batch, no_gradient) -> None:
    """Checks that the loss is the sum of its terms, its gradient, and padding."""
    batch = _with_padding(batch)
    (loss, aux), gradient = compiled(variables["params"], batch)
    assert (loss.shape, loss.dtype) == ((), np.float32)
    assert np.isfinite(loss)
    terms = list(aux.terms.values())
    assert {(x.shape, x.dtype) for x in terms} == {((), np.dtype("float32"))}
    np.testing.assert_allclose(sum(map(float, terms)), loss, rtol=1e-5)
    for name, note in aux.notes.items():
        assert (note.shape, note.dtype) == ((), np.float32), name
        assert np.isfinite(note), name
    for path, value in flatten(gradient).items():
        assert np.isfinite(value).all(), f"gradient of {path}"
        assert np.any(value != 0) == (path not in no_gradient), f"gradient of {path}"
    (again, _), _ = compiled(variables["params"], batch)
    (junk, _), _ = compiled(variables["params"], with_junk(batch))
    np.testing.assert_array_equal(loss, again, err_msg="the loss is random")
    np.testing.assert_array_equal(loss, junk, err_msg="padding changes the loss")


def _with_padding(batch: Batch) -> Batch:
    """Marks the last instance slot and, in the first clip, later frames as padding."""
    frame_valid, instance_valid = batch.frame_valid.copy(), batch.instance_valid.copy()
    frame_valid[0, 1:] = False
    instance_valid[:, -1] = False
    real = instance_valid[..., None] & frame_valid[:, None]
    return batch._replace(
        images=np.where(frame_valid[..., None, None, None], batch.images, 0),
        frame_valid=frame_valid,
        masks=batch.masks & real[..., None, None],
        boxes=np.where(real[..., None], batch.boxes, 0),
        present=batch.present & real,
        labels=np.where(instance_valid, batch.labels, 0),
        track_ids=np.where(instance_valid, batch.track_ids, 0),
        instance_valid=instance_valid,
    )


def with_junk(batch: Batch) -> Batch:
    """Replaces images and masks by noise where frames or instances are not valid."""
    padded = ~(batch.instance_valid[..., None] & batch.frame_valid[:, None])
    frames = batch.frame_valid[..., None, None, None]
    return batch._replace(
        images=np.where(frames, batch.images, 255 - batch.images),
        masks=batch.masks | padded[..., None, None],
        boxes=np.where(padded[..., None], 7.0, batch.boxes).astype(np.float32),
        labels=np.where(batch.instance_valid, batch.labels, 1).astype(np.int32),
    )


def _check_step(
    system, step, variables, batch, boxes_inside: bool
) -> tuple[Clip, Predictions]:
    """Checks the predictions of a clip."""
    clip = Clip(batch.images[1], batch.frame_valid[1], batch.sizes[1])
    state = jax.jit(system.start)(clip)
    state, found = jax.device_get(step(variables, state, clip))
    _check_predictions(found, clip, system.window)
    _check_masks(found, clip, boxes_inside)
    same_state = jax.tree.map(
        lambda a, b: a.shape == b.shape, state, jax.eval_shape(system.start, clip)
    )
    assert all(jax.tree.leaves(same_state))
    return clip, found


def _check_predictions(found: Predictions, clip: Clip, window: Window) -> None:
    slots = len(found.valid)
    assert (found.valid.shape, found.valid.dtype) == ((slots,), np.dtype(bool))
    assert (found.track_ids.shape, found.track_ids.dtype) == ((slots,), np.int32)
    assert (len(found.class_probs), found.class_probs.dtype) == (slots, np.float32)
    assert len(found.slots) == len(clip.images) + window.delay
    assert (found.slots.dtype, found.mask_logits.dtype) == (np.int32, np.float32)
    assert found.mask_logits.shape[:2] == found.slots.shape
    for row in found.slots:
        shown = row[row >= 0]
        assert len(set(shown)) == len(shown)  # a track has at most one mask per frame
        assert (shown < slots).all()
    probs, ids, valid = found.class_probs, found.track_ids, found.valid
    assert ((probs >= 0) & (probs <= 1)).all()
    assert (ids[valid] > 0).all()
    assert len(set(ids[valid])) == valid.sum()
    assert np.isfinite(found.mask_logits[found.slots >= 0]).all()
    assert int(found.lost) >= 0


def _check_masks(found: Predictions, clip: Clip, boxes_inside: bool) -> None:
    """Checks that masks cover the canvas with square cells, or boxes in the content."""
    height, width = found.mask_logits.shape[2:]
    if found.mask_boxes is None:
        assert height * clip.images.shape[2] == width * clip.images.shape[1]
        return
    boxes = found.mask_boxes
    assert (boxes.shape, boxes.dtype) == ((*found.slots.shape, 4), np.float32)
    boxes = boxes[found.slots >= 0]
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    size = np.asarray(clip.size)[::-1]
    if boxes_inside:
        assert (boxes >= 0).all()
        assert (boxes[..., 2:] <= size).all()
    else:
        assert (boxes[..., 2:] >= 0).all()
        assert (boxes[..., :2] <= size).all()
