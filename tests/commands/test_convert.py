"""A file of published weights becomes a checkpoint that everything else accepts."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from tests.command_line import call, error_of
from tests.commands.official import official_weights, write_pickle
from tests.recipes import recipe
from vis_jax.commands import convert, parts
from vis_jax.converters.files import read_source
from vis_jax.params import flatten
from vis_jax.training.checkpoint import Checkpoints, load_variables
from vis_jax.training.dry_run import batch_shapes
from vis_jax.training.initial import prepare
from vis_jax.training.sharding import make_mesh

CLIP = "configs/mask2former_vis_r50.py:debug"
FRAME = "configs/ifr_r50.py:debug"
CLASS_HEAD = {
    "params/decoder/heads/class_embed/kernel",
    "params/decoder/heads/class_embed/bias",
}


def model_shapes():
    system = parts.build_system(recipe("mask2former_vis_r50"))
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


@pytest.fixture(scope="module")
def weights():
    """Weights of a model for 80 classes, like those trained on COCO."""
    return official_weights(model_shapes(), classes=81)


@pytest.fixture(scope="module")
def source(weights, tmp_path_factory):
    return write_pickle(tmp_path_factory.mktemp("weights") / "coco.pkl", weights)


def words(config, source, output, kind="mask2former"):
    flags = {"config": config, "source": source, "output": output, "kind": kind}
    return ("convert", *(f"--{name}={value}" for name, value in flags.items()))


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    """The checkpoint of the video model, and what the command printed."""
    output = tmp_path_factory.mktemp("out") / "deeper" / "coco"
    outcome = call(*words(CLIP, source, output))
    assert outcome.code == 0, outcome.err
    return output, outcome.out


def test_the_checkpoint_is_the_file_beside_a_new_class_head(converted, weights):
    output, _ = converted
    system = parts.build_system(recipe("mask2former_vis_r50"))
    found = flatten(parts.load_model(system, str(output)))
    name = "sem_seg_head.predictor.mask_embed.layers.1.weight"
    path = "params/decoder/heads/mask_embed/layers_1/kernel"
    np.testing.assert_array_equal(found[path], weights[name].T)
    record = json.loads((output / "conversion.json").read_text())
    assert set(record["new"]) == CLASS_HEAD
    assert set(record["used"]) | set(record["dropped"]) == set(weights)
    # Parameters missing from the file have their initial values of training.
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)

    @jax.jit
    def head(key):
        return system.init(key, zeros)["params"]["decoder"]["heads"]["class_embed"]

    expected = head(jax.random.key(0))
    for leaf in ("kernel", "bias"):
        path = f"params/decoder/heads/class_embed/{leaf}"
        np.testing.assert_allclose(found[path], expected[leaf], rtol=1e-6)


def test_the_report_says_what_was_used_dropped_and_new(converted, weights):
    output, text = converted
    lines = text.splitlines()
    assert lines[0].startswith(f"used          {len(weights) - 3} tensors")
    assert any("1: class weights are settings of the loss" in line for line in lines)
    assert sum("[81, 32] gives [32, 81]" in line for line in lines) == 1
    assert "new           2 arrays keep their initial values" in text
    assert "note          style torch by Mask2Former's own settings" in text
    assert "note          not in the file, as the config has it: model.pixel_" in text
    assert lines[-1] == f"checkpoint    {output}"
    assert [path.name for path in output.parent.iterdir()] == ["coco"]


def test_what_the_file_lacks_comes_from_init_from(converted, source, tmp_path):
    first, output = converted[0], tmp_path / "again"
    outcome = call(
        *words(CLIP, source, output),
        f"--config.init_from={first}",
        "--config.seed=7",
    )
    assert outcome.code == 0, outcome.err
    before, after = load_variables(str(first)), load_variables(str(output))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_training_starts_from_it(converted, tmp_path):
    begin = {"init_from": str(converted[0])}
    config = recipe("mask2former_vis_r50", "debug", begin)
    batch = batch_shapes(B=2, T=1, M=1, H=64, W=64)
    with Checkpoints(str(tmp_path), keep=1) as checkpoints:
        state, _ = prepare(
            config,
            parts.build_system(config),
            jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch),
            checkpoints=checkpoints,
            mesh=make_mesh(),
        )
    expected, found = load_variables(config.init_from), flatten(state.variables)
    for path, value in flatten(expected).items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def test_with_categories_it_is_a_workdir(source, tmp_path):
    rows = [{"id": 7 - k, "name": f"kind {k}"} for k in range(5)]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"videos": [], "categories": rows}))
    output = tmp_path / "out"
    flags = (f"--categories={truth}", "--config.model.num_classes=0", "--warm_start")
    outcome = call(*words(FRAME, source, output), *flags)
    assert outcome.code == 0, outcome.err
    assert "decoder/clip_*/temporal_attention" in outcome.out
    assert parts.read_categories(output)[0] == (3, "kind 4")
    config = json.loads((output / "config.json").read_text())
    assert config["model"]["num_classes"] == 5
    assert config["init_from"] == str(output)
    assert config["init_fresh"] == []  # all of it is there


def test_all_that_does_not_fit_is_one_error_and_nothing_is_written(weights, tmp_path):
    wrong = dict(weights)
    pixels = "sem_seg_head.pixel_decoder."
    del wrong[f"{pixels}mask_features.bias"]
    wrong[f"{pixels}adapter_1.weight"] = np.ones((3, 3, 1, 1), np.float32)
    wrong["sem_seg_head.unheard_of"] = np.ones(3, np.float32)
    source = write_pickle(tmp_path / "wrong.pkl", wrong)
    error = error_of(*words(CLIP, source, tmp_path / "out"))
    assert error.startswith(f"{source}: the file does not fit, 4 misfits:")
    for part in (
        "source 'sem_seg_head.unheard_of' [3]: no rule",
        "target 'params/pixel_decoder/mask_features/bias': no source",
        "target 'params/pixel_decoder/adapter_1/kernel': no source",
        f"source '{pixels}adapter_1.weight': [3, 3, 1, 1] gives",
    ):
        assert part in error
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pkl"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["--output="], "--output: expected a value, got none"),
        (["--kind=yolo"], "--kind: expected one of ['condinst', "),
        (["--source=absent.pkl"], "absent.pkl: no such file"),
        (["--warm_start"], "warm_start: expected the weights of a whole Mask2Former"),
        (["--config.model.num_classes=0"], "model.num_classes: expected at least 1"),
    ],
)
def test_what_a_user_can_get_wrong(changes, expected, source, tmp_path):
    error = error_of(*words(CLIP, source, tmp_path / "out"), *changes)
    assert expected in error


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            ["--config.model.backbone.style=caffe"],
            "the config has model.backbone.style 'caffe'; give"
            " --config.model.backbone.style=torch",
        ),
        (["--style=caffe"], "--style: expected 'torch', which the file has by"),
        (["--style=bgr"], "--style: expected one of ('torch', 'caffe'), got 'bgr'"),
        (["--key=model_ema"], "--key: expected one of ['model'], got 'model_ema'"),
        (["--prefix=ema."], "--prefix: no name begins with 'ema.'"),
    ],
)
def test_what_shapes_do_not_show_is_checked(changes, expected, source, tmp_path):
    error = error_of(*words(CLIP, source, tmp_path / "out"), *changes)
    assert expected in error
    assert not (tmp_path / "out").exists()


def test_another_window_is_an_error_unless_asked_for(tmp_path):
    config = "configs/mask2former_vis_swint.py:debug"
    name = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"
    source = write_pickle(tmp_path / "swin.pkl", {name: np.zeros((169, 1))})
    command = words(config, source, tmp_path / "out")
    error = error_of(*command)
    assert "windows of 7 tokens, the config has model.backbone.window 4" in error
    assert "--config.model.backbone.window=7, or --resize_windows" in error
    assert "misfits" in error_of(*command, "--resize_windows")


def test_the_config_json_of_hugging_face_is_compared(source, tmp_path):
    shutil.copy(source, tmp_path / "weights.pkl")
    theirs = {"model_type": "mask2former", "num_attention_heads": 16}
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    error = error_of(*words(CLIP, tmp_path / "weights.pkl", tmp_path / "out"))
    assert "num_attention_heads is 16, the config has model.pixel_decoder" in error
    assert "--config.model.mask_decoder.heads=16" in error


def test_the_config_json_of_hugging_face_names_the_classes(source):
    found = read_source(source)
    names = {"id2label": {"0": "cat", "1": "dog"}}
    values = flags.FlagValues()
    flags.DEFINE_string("kind", "huggingface", "", flag_values=values)
    values.mark_as_parsed()
    named = [(1, "cat"), (2, "dog")]
    for classes, expected in ((0, named), (2, named), (3, [])):
        config = recipe("mask2former_vis_r50", "debug", {"model.num_classes": classes})
        labels = convert._labels(values, found._replace(config=names), config)
        assert [*map(tuple, labels)] == expected
    assert convert._labels(values, found, config) == ()


def test_an_existing_output_stays_as_it_is(source, tmp_path):
    (tmp_path / "out").mkdir()
    error = error_of(*words(CLIP, source, tmp_path / "out"))
    assert error == (
        f"--output: expected a new folder, got {tmp_path / 'out'}, which exists"
    )


def caffe2_weights():
    """Random tensors under the names of Caffe2 for the backbone of `CLIP`."""
    leaves = {"kernel": "w", "scale": "bn_s", "bias": "bn_b"}
    leaves |= {"mean": "bn_rm", "var": "bn_riv"}
    branches = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "shortcut": "1"}
    rng, weights = np.random.default_rng(0), {}
    for path, shape in model_shapes().items():
        collection, part, *rest = path.split("/")
        if part != "backbone":
            continue
        block, layer, leaf = rest[0], rest[1], leaves[rest[-1]]
        name = f"{block}_branch{branches[layer]}_{leaf}"
        if block == "stem":
            name = "conv1_w" if leaf == "w" else f"res_conv1_{leaf}"
        order = [shape[i] for i in (3, 2, 0, 1)] if leaf == "w" else shape
        weights[name] = rng.random(order, np.float32)
    return weights | {"conv1_b": np.full(16, 0.5, np.float32)}


def test_a_backbone_of_caffe2_needs_a_config_of_its_style(tmp_path):
    weights = caffe2_weights()
    source = write_pickle(tmp_path / "R-50.pkl", weights)
    command = words(CLIP, source, tmp_path / "out", "resnet")
    error = error_of(*command)
    assert error.startswith(f"{source}: the weights are of style 'caffe'")
    assert error.endswith("give --config.model.backbone.style=caffe")
    assert not (tmp_path / "out").exists()
    outcome = call(*command, "--config.model.backbone.style=caffe")
    assert outcome.code == 0, outcome.err
    assert "note          style caffe by the names of Caffe2" in outcome.out
    assert "note          conv1_b, a bias of the first convolution" in outcome.out
    found = flatten(load_variables(str(tmp_path / "out")))
    mean = found["constants/backbone/stem/conv1/norm/mean"]
    np.testing.assert_allclose(mean, weights["res_conv1_bn_rm"] - 0.5, rtol=1e-6)
    kernel = found["params/backbone/res3_0/conv1/kernel"]
    theirs = weights["res3_0_branch2a_w"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, theirs)
