import functools
import pickle
import re

import jax
import numpy as np
import pytest

from tests.golden.backbones import shapes_of as backbone_shapes
from tests.golden.cases import load
from tests.golden.mask2former import settings_of_case, shapes_of
from vis_jax.backbones.resnet import ResNet
from vis_jax.backbones.swin import Swin
from vis_jax.converters.load import convert_file, convert_tensors
from vis_jax.params import flatten
from vis_jax.settings import read_settings, to_dict
from vis_jax.systems.ifr import Settings, build_model

CASE = "mask2former_swin_tiny"


@functools.cache
def weights_of_case():
    return load(CASE).weights()


@functools.cache
def converted():
    return convert_tensors(weights_of_case(), model_shapes(), "mask2former")


@functools.cache
def model_shapes(kind="m2f_vis", *, loss="ce", **changes):
    """Returns the shapes of the case's model; `changes` are by field of `model`."""
    config = to_dict(settings_of_case(load(CASE)))
    decoder = config["model"]["mask_decoder"] | {"kind": kind}
    config["model"]["mask_decoder"], config["loss"] = decoder, {"kind": loss}
    for path, value in changes.items():
        part, _, name = path.rpartition(".")
        (config["model"][part] if part else config["model"])[name] = value
    return shapes_of(build_model(read_settings(Settings, config)))


def same_values(a, b):
    a, b = flatten(a), flatten(b)
    assert set(a) == set(b)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def hugging_face_names(case):
    """Weights of a case under the names and in the pieces of the other library."""
    weights, out = weights_of_case(), {}
    for entry in case.manifest["hf_name_map"]:
        tensor = weights.get(entry["official"])
        if tensor is not None and "slice" in entry:
            tensor = np.split(tensor, 3)[entry["slice"]]
        if tensor is not None:
            out[entry["hf"]] = tensor
    return out


def test_every_official_tensor_is_used_and_every_parameter_filled():
    _, report = converted()
    assert not report.new
    assert set(report.dropped) <= {"criterion.empty_weight"}
    assert set(report.used) | set(report.dropped) == set(weights_of_case())


def test_both_libraries_give_the_same_model():
    renamed = hugging_face_names(load(CASE))
    theirs, report = convert_tensors(renamed, model_shapes(), "huggingface")
    same_values(converted()[0], theirs)
    assert set(report.used) | set(report.dropped) == set(renamed)


def test_names_that_transformers_5_has_in_memory_are_the_same_model():
    spelling = {
        "encoder.embeddings": "encoder.swin.embeddings",
        "encoder.encoder": "encoder.swin.encoder",
        "attention.self.query": "attention.q_proj",
        "attention.self.key": "attention.k_proj",
        "attention.self.value": "attention.v_proj",
        "attention.self.rel": "attention.relative_position_bias.rel",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    renamed = {}
    for name, tensor in hugging_face_names(load(CASE)).items():
        if ".encoder.encoder." in name or ".encoder.embeddings." in name:
            for old, new in spelling.items():
                name = name.replace(old, new)
        renamed[name] = tensor
    assert "model.pixel_level_module.encoder.swin.embeddings.norm.bias" in renamed
    theirs, _ = convert_tensors(renamed, model_shapes(), "huggingface")
    same_values(converted()[0], theirs)


def test_old_and_released_spellings_are_accepted():
    old = {
        name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.").replace(
            "predictor.query_feat", "predictor.static_query"
        ): tensor
        for name, tensor in weights_of_case().items()
    }
    theirs, _ = convert_tensors(old, model_shapes(), "mask2former")
    same_values(converted()[0], theirs)


def test_video_model_with_other_classes_fewer_queries_and_another_window():
    shapes = model_shapes(
        **{
            "num_classes": 40,
            "mask_decoder.queries": 50,
            "backbone.window": 4,
        }
    )
    variables, report = convert_tensors(weights_of_case(), shapes, "mask2former")
    head = "params/decoder/heads/class_embed"
    assert set(report.new) == {f"{head}/kernel", f"{head}/bias"}
    queries = variables["params"]["decoder"]["tables"]["query_feat"]
    stored = weights_of_case()["sem_seg_head.predictor.query_feat.weight"]
    np.testing.assert_array_equal(queries, stored[:50])


@pytest.mark.parametrize("frame_ffn", [True, False])
def test_frame_decoder_starts_random_or_from_the_layers_it_resembles(frame_ffn):
    weights = weights_of_case()
    shapes = model_shapes("ifr", loss="focal", **{"mask_decoder.frame_ffn": frame_ffn})
    _, report = convert_tensors(weights, shapes, "mask2former")
    decoder = {path.split("/")[2] for path in report.new}
    assert decoder == {"heads"} | {
        f"{x}_{i}" for x in ("frame", "clip") for i in range(9)
    }
    warm, report = convert_tensors(weights, shapes, "mask2former", warm_start=True)
    left = {path for path in report.new if "class_embed" not in path}
    assert {path.split("/")[3] for path in left} == {
        "temporal_attention",
        "temporal_norm",
    }
    name = "sem_seg_head.predictor.transformer_self_attention_layers.4.self_attn"
    value = np.split(weights[f"{name}.in_proj_weight"], 3)[2].T
    for part in ("frame_4", "clip_4"):
        ours = warm["params"]["decoder"][part]["self_attention"]["value"]["kernel"]
        np.testing.assert_array_equal(ours.reshape(256, 256), value)


def test_all_spellings_of_resnets_give_the_same_backbone():
    case = load("backbone_resnet50")
    shapes = backbone_shapes(ResNet("50"))
    ours, report = convert_tensors(case.weights("detectron2"), shapes, "resnet")
    assert not report.new
    caffe = {}
    branches = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
    leaves = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    for name, tensor in case.weights("detectron2").items():
        parts = name.split(".")
        if parts[0] == "stem":
            base = "conv1" if parts[-2] == "conv1" else "res_conv1_bn"
        else:
            base = f"{parts[0]}_{parts[1]}_branch{branches[parts[2]]}"
            base += "_bn" if parts[-2] == "norm" else ""
        leaf = leaves[parts[-1]] if base.endswith("bn") else "w"
        caffe[f"{base}_{leaf}"] = tensor
    caffe["fc1000_w"] = np.zeros((1000, 2048), np.float32)
    theirs, report = convert_tensors(caffe, shapes, "resnet")
    assert not report.new
    same_values(ours, theirs)


def test_norms_that_train_scale_and_bias_have_them_among_the_parameters():
    weights = load("backbone_resnet50").weights("detectron2")
    fixed, _ = convert_tensors(weights, backbone_shapes(ResNet("50")), "resnet")
    fixed = flatten(fixed)
    for norm, statistics in (("frozen_stats", "constants"), ("batch", "batch_stats")):
        shapes = backbone_shapes(ResNet("50", norm=norm))
        trained, report = convert_tensors(weights, shapes, "resnet")
        assert not report.new
        assert set(trained) == {"params", statistics}
        for path, leaf in flatten(trained).items():
            moved = (
                re.sub("^[a-z_]+/", "constants/", path) if "/norm/" in path else path
            )
            np.testing.assert_array_equal(leaf, fixed[moved], err_msg=path)


def test_microsofts_swin_leaves_the_output_norms_new():
    case = load("backbone_swin_tiny")
    shapes = backbone_shapes(Swin("tiny"))
    weights = {
        name: x for name, x in case.weights().items() if not name.startswith("norm")
    }
    weights |= {"norm.weight": np.ones(768), "head.weight": np.ones((1000, 768))}
    _, report = convert_tensors(weights, shapes, "swin")
    assert set(report.new) == {
        f"params/backbone/norm{i}/{leaf}"
        for i in range(4)
        for leaf in ("scale", "bias")
    }
    assert set(report.dropped) == {"norm.weight", "head.weight"}


def test_a_file_keeps_the_initial_values_of_what_is_new(tmp_path):
    case = load("backbone_swin_tiny")
    shapes = backbone_shapes(Swin("tiny"))
    initial = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), shapes)
    initial["params"]["head"] = {"bias": np.full(3, 2.0)}
    path = tmp_path / "swin.pkl"
    path.write_bytes(pickle.dumps({"model": case.weights()}))
    variables, report = convert_file(path, initial, "swin")
    assert report.new == ("params/head/bias",)
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], [2, 2, 2])
    assert jax.tree.structure(variables) == jax.tree.structure(initial)
    with pytest.raises(
        ValueError, match=r"swin.pkl: the file does not fit, .* misfits"
    ):
        convert_file(path, initial, "mask2former")
    with pytest.raises(ValueError, match="kind: expected one of"):
        convert_file(path, initial, "yolo")
