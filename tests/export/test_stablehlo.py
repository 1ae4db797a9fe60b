"""Every system becomes programs, which are what their manifest says."""

import dataclasses
import hashlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.recipes import ONE_STAGE, recipe
from tests.training.toy_system import SIDE, toy_system
from vis_jax.commands import parts
from vis_jax.export import programs
from vis_jax.export.manifest import (
    ClipShape,
    read_manifest,
    shape_of,
    write_manifest,
)
from vis_jax.export.programs import StoredSystem, read_programs
from vis_jax.export.stablehlo import (
    export_programs,
    manifest_of,
    shapes_like,
    write_programs,
)
from vis_jax.params import flatten, unflatten
from vis_jax.structures import Clip, Window
from vis_jax.systems.system import TestSettings

SIZE = (64, 96)


def _written(folder, run, shape):
    """A system, shapes of its variables, and its manifest, read again."""
    system = parts.build_system(run)
    forms = flatten(parts.shapes_of(system))
    made = write_programs(folder, system, forms, [shape], multiple=run.test.chunk)
    classes = [(i + 1, f"class {i}") for i in range(run.model.num_classes)]
    test, name = run.test, run.system
    if shape.frames is None:
        window = system.window._replace(buckets=(2 * test.chunk,))
        system = system._replace(window=window)
    manifest = manifest_of(system, test, made, name=name, categories=classes)
    write_manifest(folder, manifest)
    return system, forms, read_manifest(folder)


@pytest.mark.parametrize(
    "name",
    [
        "mask_prop_shapes",
        "iai_condinst_shapes",
        "cascade_shapes",
        "osmn_shapes",
        "videomt_shapes",
        "lvmt",
    ],
)
def test_systems_become_programs_for_clips(name, tmp_path):
    changes = {"test.mode": "clip", "test.clip_length": 2}
    if name == "mask_prop_shapes":  # a cascade has all stages and branches
        changes |= ONE_STAGE
    run = recipe(name, "debug", changes)
    shape = ClipShape(2, *SIZE)
    system, forms, manifest = _written(tmp_path, run, shape)
    found = read_programs(tmp_path, manifest, forms)
    assert set(found[shape].step.platforms) == {"cpu", "cuda", "tpu"}
    assert manifest.window_of() == system.window
    assert manifest.render_of() == system.render
    state = found[shape].start.out_avals
    assert len(state) == len(manifest.shapes()[shape].state)


@pytest.mark.parametrize(
    "name",
    [
        "rgnn_vis_shapes",
        "condinst_shapes",
        "iai_mask_rcnn_shapes",
        "yolact_shapes",
        "eomt",
    ],
)
def test_systems_become_programs_for_any_number_of_frames(
    name, tmp_path, types_unchecked
):
    run = recipe(name, "debug", {"test.mode": "video"})
    shape = ClipShape(None, *SIZE)
    _, forms, manifest = _written(tmp_path, run, shape)
    step = read_programs(tmp_path, manifest, forms)[shape].step
    images = jax.tree.unflatten(step.in_tree, step.in_avals)[0][2]["images"]
    assert str(images.shape[0]) == f"{run.test.chunk}*chunks"


def test_a_program_for_any_number_of_frames_is_the_system(tmp_path, types_unchecked):
    small = {"test.mode": "video", "model.mask_decoder.layers": 1}
    run = recipe("ifr_shapes", "debug", small)
    system, forms, manifest = _written(tmp_path, run, ClipShape(None, *SIZE))
    rng = np.random.default_rng(0)
    values = {
        name: rng.normal(0, 0.1, x.shape).astype(x.dtype) for name, x in forms.items()
    }
    stored = StoredSystem(read_programs(tmp_path, manifest, values), values)
    frames = 2 * run.test.chunk
    empty = shapes_like(ClipShape(frames, *SIZE))
    clip = Clip(*(np.ones(x.shape, x.dtype) for x in empty))
    clip = clip._replace(
        images=rng.integers(0, 256, empty.images.shape, np.uint8),
        size=np.array(SIZE, np.int32),
    )
    _, found = stored.step(stored.start(clip), clip)
    _, expected = jax.jit(system.step)(unflatten(values), system.start(clip), clip)
    for name, value in expected._asdict().items():
        if value is not None:
            np.testing.assert_allclose(getattr(found, name), value, atol=1e-3)
    few = clip._replace(images=clip.images[:, :32])
    with pytest.raises(ValueError, match="expected clips of one of .*anyx64x96"):
        stored.start(few)


def test_a_batched_step_is_that_of_each_video(tmp_path):
    toy, rng = toy_system()._replace(window=Window(2, 2)), np.random.default_rng(0)
    forms = flatten(jax.eval_shape(lambda key: toy.init(key, None), jax.random.key(0)))
    values = {name: rng.normal(size=x.shape).astype("f4") for name, x in forms.items()}
    shape = ClipShape(2, SIDE, SIDE)
    made = write_programs(tmp_path, toy, forms, [shape], multiple=8, batched=True)
    given = dict(name="toy", categories=[(i, f"class {i}") for i in range(3)])
    manifest = manifest_of(toy, TestSettings(), made, batched=True, **given)
    write_manifest(tmp_path, manifest)
    programs = read_programs(tmp_path, read_manifest(tmp_path), forms)
    images = rng.integers(0, 256, (3, 2, SIDE, SIDE, 3), np.uint8)
    clip = Clip(*(np.ones(x.shape, x.dtype) for x in shapes_like(shape)))
    several = {n: np.stack([x] * 3) for n, x in clip._asdict().items()}
    several |= {"images": images}
    _, found = programs[shape].step.call(values, {}, several)
    stored = StoredSystem(programs, values, batched=True)
    for i, one in enumerate(images):
        _, expected = toy.step(unflatten(values), (), clip._replace(images=one))
        _, single = stored.step(stored.start(clip), clip._replace(images=one))
        for name, value in found.items():
            np.testing.assert_allclose(value[i], getattr(expected, name), rtol=1e-4)
            np.testing.assert_allclose(value[i], getattr(single, name), rtol=1e-4)
    unlike = manifest_of(toy, TestSettings(), made, **given)
    with pytest.raises(
        ValueError, match=r"clip: frame_valid: expected bool \[2\], got"
    ):
        read_programs(tmp_path, unlike, forms)
    write_programs(tmp_path, toy, forms, [shape], multiple=8)
    changed = {k: dataclasses.replace(v, **_digests(tmp_path)) for k, v in made.items()}
    unlike = dataclasses.replace(manifest, programs=changed)
    with pytest.raises(ValueError, match="expected any number of videos first, got"):
        read_programs(tmp_path, unlike, forms)


def _digests(folder):
    files = {path.name.split("_")[0]: path for path in folder.glob("*.jax_export")}
    return {k: hashlib.sha256(x.read_bytes()).hexdigest() for k, x in files.items()}


def test_a_program_takes_weights_in_int8():
    toy, rng = toy_system(), np.random.default_rng(0)
    forms = flatten(jax.eval_shape(lambda key: toy.init(key, None), jax.random.key(0)))
    values = {name: rng.normal(size=x.shape).astype("f4") for name, x in forms.items()}
    few = {
        "params/head/kernel": rng.integers(-127, 128, (3, 3), np.int8),
        "params/head/kernel:scale": np.array([[0.01, 0.02, 0.1]], np.float32),
    }
    shape = ClipShape(2, SIDE, SIDE)
    arrays = values | few
    given = {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in arrays.items()}
    made = export_programs(toy, given, shape, multiple=8)
    clip = Clip(*(np.ones(x.shape, x.dtype) for x in shapes_like(shape)))
    clip = clip._replace(images=rng.integers(0, 256, clip.images.shape, np.uint8))
    _, found = made.step.call(arrays, {}, clip._asdict())
    kernel = few["params/head/kernel"] * few["params/head/kernel:scale"]
    wide = unflatten(values | {"params/head/kernel": kernel})
    _, expected = toy.step(wide, (), clip)
    np.testing.assert_allclose(found["class_probs"], expected.class_probs, rtol=1e-5)


@pytest.mark.parametrize(
    ("frames", "number", "expected"),
    [
        (2, lambda x: jnp.linalg.eig(x[0, :2, :2, 0])[0].real.sum(), "'eig' not found"),
        (None, lambda x: jnp.float32(x.shape[0] > 20), "is inconclusive"),
        (None, lambda x: jnp.float32(len(range(x.shape[0]))), "as an integer"),
    ],
)
def test_what_cannot_be_lowered_is_one_line(frames, number, expected):
    toy = toy_system()

    def step(variables, state, clip):
        state, found = toy.step(variables, state, clip)
        more = number(clip.images.astype(jnp.float32))
        return state, found._replace(mask_logits=found.mask_logits + more)

    forms = flatten(jax.eval_shape(lambda key: toy.init(key, None), jax.random.key(0)))
    shape = ClipShape(frames, SIDE, SIDE)
    with pytest.raises(ValueError, match="cannot be lowered: ") as caught:
        export_programs(toy._replace(step=step), forms, shape, multiple=8)
    line = str(caught.value)
    assert line.startswith(f"clips of {shape} (frames x height x width): ")
    assert expected in line and "\n" not in line


@pytest.mark.parametrize(
    "name", ["../x", "2x64", "0x64x96", "2x64x96/..", "2x64x99999", "99999x64x96", ""]
)
def test_what_is_no_shape_is_no_file(name):
    with pytest.raises(ValueError, match="expected frames x height x width"):
        shape_of(name)


@pytest.mark.parametrize("name", ["2x64x96", "anyx384x640"])
def test_a_shape_is_named_as_it_is_read(name):
    assert str(shape_of(name)) == name


@pytest.mark.parametrize("change", ["call", "platform", "bytes", "text", "devices"])
def test_a_program_that_is_no_pure_stablehlo_is_refused(change, tmp_path):
    def run(x):
        return jnp.linalg.eigh(x)[0] if change == "call" else x + 1

    platforms = ("tpu",) if change == "platform" else ("cpu",)
    made = export.export(jax.jit(run), platforms=platforms)
    content = b"no program"
    if change != "bytes":
        program = made(jnp.eye(2))
        if change == "text":
            text = program.mlir_module().encode()
            program = dataclasses.replace(program, mlir_module_serialized=text)
        if change == "devices":
            program = dataclasses.replace(program, nr_devices=2)
        content = bytes(program.serialize())
    path = tmp_path / "step_1x32x32.jax_export"
    path.write_bytes(content)
    expected = {
        "call": "got custom calls of lapack_ssyevd_ffi",
        "platform": "expected a program for cpu, got one for tpu",
        "text": "expected bytecode of MLIR",
        "devices": "expected a program for one device, got one for 2",
    }
    with pytest.raises(ValueError, match=expected.get(change, "not a program that")):
        programs.read_program(path, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%0 = stablehlo.custom_call @shape_assertion(%1)", set()),
        ("%0 = stablehlo.custom_call @xla_ffi_call(%1)", {"xla_ffi_call"}),
        ('%0 = "stablehlo.custom_call"(%1)', {"unknown names"}),
        ("%0 = mhlo.custom_call @shape_assertion(%1)", {"unknown names"}),
    ],
)
def test_calls_of_any_dialect_and_form_are_seen(text, expected, types_unchecked):
    found = SimpleNamespace(
        mlir_module_serialized=b"custom_call", mlir_module=lambda: text
    )
    assert programs._custom_calls(found) == expected
