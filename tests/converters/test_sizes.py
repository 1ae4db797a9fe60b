import numpy as np
import pytest

from vis_jax.converters.sizes import (
    check_config,
    check_window,
    labels_of,
    resized,
    unseen,
)

# config.json of a Mask2Former with Swin-T, and a config that says the same.
THEIRS = {
    "model_type": "mask2former",
    "backbone_config": {
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "mlp_ratio": 4.0,
        "hidden_act": "gelu",
    },
    "feature_size": 256,
    "mask_feature_size": 128,
    "encoder_layers": 6,
    "encoder_feedforward_dim": 1024,
    "num_attention_heads": 8,
    "hidden_dim": 256,
    "dim_feedforward": 2048,
    "decoder_layers": 10,
    "pre_norm": False,
    "feature_strides": [4, 8, 16, 32],
}
OURS = {
    "model.backbone.dim": 96,
    "model.backbone.depths": (2, 2, 6, 2),
    "model.backbone.heads": (3, 6, 12, 24),
    "model.backbone.window": 7,
    "model.pixel_decoder.dim": 256,
    "model.pixel_decoder.mask_dim": 128,
    "model.pixel_decoder.layers": 6,
    "model.pixel_decoder.heads": 8,
    "model.pixel_decoder.mlp_dim": 1024,
    "model.mask_decoder.dim": 256,
    "model.mask_decoder.layers": 9,
    "model.mask_decoder.heads": 8,
    "model.mask_decoder.mlp_dim": 2048,
}


def test_the_same_sizes_are_fine():
    assert check_config(THEIRS, OURS, decoder=True) == ("sizes as config.json says",)


@pytest.mark.parametrize("path", OURS)
def test_each_size_is_compared_and_named(path):
    other = tuple(2 * x for x in OURS[path]) if "heads" in path[:20] else 5
    with pytest.raises(ValueError, match=rf"config has {path} .*--config.{path}="):
        check_config(THEIRS, OURS | {path: other}, decoder=True)


def test_what_another_decoder_does_not_use_may_differ():
    ours = OURS | {"model.mask_decoder.heads": 4, "model.mask_decoder.layers": 3}
    check_config(THEIRS, ours, decoder=False)
    with pytest.raises(ValueError, match=r"heads 4, give .*decoder_layers is 9"):
        check_config(THEIRS, ours, decoder=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "maskformer"}, "expected mask2former, got 'maskformer'"),
        ({"pre_norm": True}, "pre_norm: expected False, got True"),
        ({"common_stride": 8}, "common_stride: expected 4, got 8"),
        ({"backbone_config": {"patch_size": 2}}, "backbone_config.patch_size"),
    ],
)
def test_models_of_another_make_are_errors(change, match):
    with pytest.raises(ValueError, match=match):
        check_config(THEIRS | change, OURS, decoder=True)


def test_the_window_is_seen_from_the_table():
    name = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    tensors = {name: np.zeros((23 * 23, 6))}
    fields = {"model.backbone.window": 12}
    check_window(tensors, fields, resize=False)
    fields = {"model.backbone.window": 7}
    with pytest.raises(ValueError, match=r"windows of 12 .*\.window=12, or --resize"):
        check_window(tensors, fields, resize=False)
    check_window(tensors, fields, resize=True)
    check_window(tensors, {}, resize=False)  # a ResNet


def test_resized_tables_and_left_out_queries_are_told():
    tables = [f"layers_{i}/attn/relative_position_bias_table" for i in range(3)]
    used = {path: (path,) for path in tables}
    used["queries"] = ("params/decoder/tables/query_feat",)
    tensors = {path: np.zeros((169, 3)) for path in tables}
    tensors["queries"] = np.zeros((200, 8))
    shapes = {tables[0]: (529, 3), tables[1]: (529, 3), tables[2]: (169, 3)}
    shapes["params/decoder/tables/query_feat"] = (100, 8)
    assert resized(used, tensors, shapes) == [
        "2 tables of relative positions resized from window 7 to 12",
        "params/decoder/tables/query_feat: the first 100 of 200 queries",
    ]


def test_sizes_that_nothing_shows_are_told():
    (line,) = unseen(OURS)
    assert line.endswith("model.pixel_decoder.heads 8, model.mask_decoder.heads 8")


def test_labels_are_names_in_the_order_of_their_numbers():
    assert labels_of({"id2label": {"1": "b", "0": "a"}}) == ("a", "b")
    assert labels_of({}) == ()
    assert labels_of({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}) == ()
    for wrong in ({"0": "a", "2": "b"}, {"0": 1}, {"x": "a"}, ["a"], 3):
        with pytest.raises(ValueError, match="id2label: expected a name for each"):
            labels_of({"id2label": wrong})
