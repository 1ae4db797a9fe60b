"""EoMT, VidEoMT and the transformers they start from, by the names of their files."""

import functools
import hashlib
import json

import jax
import numpy as np
import pytest

from vis_jax.converters import vit
from vis_jax.converters.load import convert_tensors
from vis_jax.converters.report import record_of
from vis_jax.converters.rules import ConvertReport, MisfitError
from vis_jax.params import flatten
from vis_jax.settings import read_settings
from vis_jax.systems.videomt import Settings, build_model

DIM, QUERIES, CLASSES, TABLE = 16, 5, 3, 4


@functools.cache
def shapes(form="dinov2", propagation="fusion", own=False):
    """Variables of a small model."""
    backbone = dict(variant="thin", dim=DIM, depth=2, heads=2, form=form, table=TABLE)
    decoder = dict(kind="own", blocks=2, levels=(0, 1)) if own else dict(blocks=1)
    model = dict(
        num_classes=CLASSES, backbone=backbone, queries=QUERIES, decoder=decoder,
        propagation=propagation,
    )  # fmt: skip
    model = build_model(read_settings(Settings, dict(model=model)))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def _layer(name, out, inside, bias=True):
    return {f"{name}.weight": (out, inside)} | (
        {f"{name}.bias": (out,)} if bias else {}
    )


def _norm(name):
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def backbone_shapes(form, prefix="", patch=16, table=TABLE):
    """The names of timm, and those of EoMT's authors on DINOv3."""
    found = _norm(f"{prefix}norm")
    if form == "dinov2":
        found |= {
            f"{prefix}cls_token": (1, 1, DIM),
            f"{prefix}reg_token": (1, 4, DIM),
            f"{prefix}pos_embed": (1, table**2, DIM),
            f"{prefix}patch_embed.proj.weight": (DIM, 3, patch, patch),
            f"{prefix}patch_embed.proj.bias": (DIM,),
        }
    else:
        embed = f"{prefix}patch_embed."
        found |= {
            f"{embed}cls_token": (1, 1, DIM),
            f"{embed}register_tokens": (1, 4, DIM),
            f"{embed}patch_embeddings.weight": (DIM, 3, patch, patch),
            f"{embed}patch_embeddings.bias": (DIM,),
        }
    for i in range(2):
        block = f"{prefix}blocks.{i}."
        found |= _norm(f"{block}norm1") | _norm(f"{block}norm2")
        if form == "dinov2":
            found |= _layer(f"{block}attn.qkv", 3 * DIM, DIM)
            found |= _layer(f"{block}attn.proj", DIM, DIM)
            found |= _layer(f"{block}mlp.fc1", 4 * DIM, DIM)
            found |= _layer(f"{block}mlp.fc2", DIM, 4 * DIM)
            found |= {f"{block}ls{n}.gamma": (DIM,) for n in (1, 2)}
        else:
            for part in "qkvo":
                name = f"{block}attention.{part}_proj"
                found |= _layer(name, DIM, DIM, part != "k")
            found |= _layer(f"{block}mlp.up_proj", 4 * DIM, DIM)
            found |= _layer(f"{block}mlp.down_proj", DIM, 4 * DIM)
            found |= {f"{block}layer_scale{n}.lambda1": (DIM,) for n in (1, 2)}
    return found


def model_shapes(form, prefix, propagation="fusion"):
    """The names of the authors of EoMT and VidEoMT."""
    found = backbone_shapes(form, f"{prefix}encoder.backbone.")
    found |= {f"{prefix}q.weight": (QUERIES, DIM)}
    found |= _layer(f"{prefix}class_head", CLASSES + 1, DIM)
    for n in (0, 2, 4):
        found |= _layer(f"{prefix}mask_head.{n}", DIM, DIM)
    for n in range(2):
        up = f"{prefix}upscale.{n}."
        found |= {
            f"{up}conv1.weight": (DIM, DIM, 2, 2),
            f"{up}conv1.bias": (DIM,),
            f"{up}conv2.weight": (DIM, 1, 3, 3),
        } | _norm(f"{up}norm")
    if propagation == "fusion":
        found |= _layer(f"{prefix}query_updater", DIM, DIM)
    if propagation == "gru":
        gru = f"{prefix}query_gru."
        found |= {f"{gru}weight_{x}": (3 * DIM, DIM) for x in ("ih", "hh")}
        found |= {f"{gru}bias_{x}": (3 * DIM,) for x in ("ih", "hh")}
    return found


def decoder_shapes():
    """The names of PMT and LVMT on DINOv3."""
    found = backbone_shapes("dinov3", "backbone.encoder.backbone.")
    head = model_shapes("dinov3", "backbone.decoder.", "gru")
    found |= {n: x for n, x in head.items() if ".encoder." not in n}
    blocks = backbone_shapes("dinov3", "backbone.decoder.")
    for name, shape in blocks.items():
        if ".blocks." in name:  # an MLP as wide as the tokens
            found[name] = tuple(min(x, DIM) for x in shape)
    found |= _norm("backbone.decoder.decoder_norm")
    for i in range(2):
        found |= _norm(f"backbone.bn.{i}")
        found |= {f"backbone.bn.{i}.running_{x}": (DIM,) for x in ("mean", "var")}
        lateral = f"backbone.decoder.lateral_projections.{i}."
        found |= _layer(f"{lateral}0", DIM // 2, DIM)
        found |= _layer(f"{lateral}2", DIM, DIM // 2)
        found |= {f"backbone.decoder.scalers.{i}": (DIM,)}
    return found


def numbered(names):
    """Tensors of these shapes with other values each, near 1."""
    rng = np.random.default_rng(0)
    return {
        name: 1 + 0.1 * rng.normal(size=shape).astype(np.float32)
        for name, shape in names.items()
    }


def hugging_face(form):
    """The same model by the names of Hugging Face."""
    plain = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings.weight",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
        "patch_embed.": "embeddings.",
        "blocks.": "layers.",
        "attn.proj.": "attention.out_proj.",
        "norm.": "layernorm.",
    }
    heads = {
        "q.": "query.", "class_head.": "class_predictor.", "upscale.":
        "upscale_block.block.", "mask_head.0": "mask_head.fc1",
        "mask_head.2": "mask_head.fc2", "mask_head.4": "mask_head.fc3",
    }  # fmt: skip
    found = {}
    for name, x in numbered(model_shapes(form, "")).items():
        if not name.startswith("encoder.backbone."):
            old = next((a for a in heads if name.startswith(a)), None)
            new = name.replace(old, heads[old], 1) if old else name
            found[new.replace(".norm.", ".layernorm2d.")] = x
            continue
        name = name.removeprefix("encoder.backbone.")
        old = next((a for a in plain if name.startswith(a)), None)
        name = name.replace(old, plain[old], 1) if old else name
        name = name.replace(".attn.proj.", ".attention.out_proj.")
        for n in (1, 2):
            name = name.replace(f"ls{n}.gamma", f"layer_scale{n}.lambda1")
        if name.endswith("position_embeddings.weight"):
            x = x[0]
        if ".attn.qkv." in name:
            for part, rows in zip("qkv", np.split(x, 3), strict=True):
                found[name.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            found[name] = x
    return found


# The files of test_publish: tensors, and the shapes of the model that they fill.
FILES = {
    "dino": lambda: (numbered(backbone_shapes("dinov3")), shapes("dinov3")),
    "eomt": lambda: (
        numbered(model_shapes("dinov2", "network.", "none")),
        shapes(propagation="none"),
    ),
    "pmt": lambda: (numbered(decoder_shapes()), shapes("dinov3", "gru", own=True)),
    "videomt": lambda: (
        numbered(model_shapes("dinov3", "backbone.", "gru")),
        shapes("dinov3", "gru"),
    ),
    "videomt_huggingface": lambda: (hugging_face("dinov2"), shapes()),
}


def _converted(tensors, kind, **model):
    variables, report = convert_tensors(tensors, shapes(**model), kind)
    return flatten(variables), report


def test_the_names_of_hugging_face_fill_the_same_model():
    for form in ("dinov2", "dinov3"):
        official = numbered(model_shapes(form, "backbone."))
        official = {
            name: x
            for name, x in zip(
                official, numbered(model_shapes(form, "")).values(), strict=True
            )
        }
        ours, _ = _converted(official, "videomt", form=form)
        theirs, report = _converted(
            hugging_face(form), "videomt_huggingface", form=form
        )
        assert not report.new
        for path, x in ours.items():
            np.testing.assert_array_equal(x, theirs[path], err_msg=path)


def test_what_belongs_to_no_model_is_dropped_and_other_classes_are_new():
    tensors = numbered(model_shapes("dinov2", "network.", "none"))
    tensors["network.class_head.weight"] = np.ones((81, DIM), np.float32)
    tensors["network.class_head.bias"] = np.ones(81, np.float32)
    tensors |= {
        "network.attn_mask_probs": np.ones(1, np.float32),
        "criterion.empty_weight": np.ones(4, np.float32),
        "network.encoder.pixel_mean": np.ones((1, 3, 1, 1), np.float32),
    }
    found, report = _converted(tensors, "eomt")
    classes = "params/heads/class_head/linear"
    carry = "params/propagation/updater"
    new = {f"{x}/{leaf}" for x in (classes, carry) for leaf in ("kernel", "bias")}
    assert set(report.new) == new
    assert len(report.dropped) == 5


def test_differences_to_weights_are_no_weights():
    tensors = numbered(model_shapes("dinov3", "network.", "none"))
    tensors["network.encoder.backbone.norm.weight"] -= 1
    with pytest.raises(ValueError, match="got differences to the weights of Meta's"):
        _converted(tensors, "eomt", form="dinov3", propagation="none")


def test_differences_are_added_to_their_base():
    prefix, form = "network.encoder.backbone.", dict(form="dinov3", propagation="none")
    whole = numbered(model_shapes("dinov3", "network.", "none"))
    rng = np.random.default_rng(1)
    base = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in backbone_shapes("dinov3").items()
    }
    base["norm.weight"] += 1
    few = {n: x - base.get(n.removeprefix(prefix), 0 * x) for n, x in whole.items()}
    expected, _ = _converted(whole, "eomt", **form)
    variables, report = convert_tensors(few, shapes(**form), "eomt", base=base)
    assert any("--base" in note for note in report.notes)
    for path, x in flatten(variables).items():
        if path not in report.new:
            np.testing.assert_allclose(x, expected[path], atol=1e-5, err_msg=path)


def test_the_record_names_the_base(tmp_path):
    found = {}
    for folder in ("differences", "meta"):
        found[folder] = tmp_path / folder / "model.safetensors"
        found[folder].parent.mkdir()
        found[folder].write_text(folder)
    report = ConvertReport({}, {}, {}, (), ())
    text = record_of(report, [found["differences"]], "eomt", base=[found["meta"]])
    assert json.loads(text)["files"] == {
        "model.safetensors": hashlib.sha256(b"differences").hexdigest(),
        "base/model.safetensors": hashlib.sha256(b"meta").hexdigest(),
    }


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("eomt", {}, "expected differences to the weights of --base, got weights"),
        ("videomt", {}, "--base: expected --kind eomt, .* got 'videomt'"),
        ("eomt", {"norm.weight": None}, "^--base: .*norm"),
    ],
)
def test_a_base_that_does_not_fit_is_an_error(kind, change, message):
    tensors = numbered(model_shapes("dinov3", "network.", "none"))
    if change:
        tensors["network.encoder.backbone.norm.weight"] -= 1
    base = numbered(backbone_shapes("dinov3"))
    base = {name: x for name, x in base.items() if name not in change}
    with pytest.raises(ValueError, match=f"(?s){message}"):
        convert_tensors(tensors, shapes("dinov3", "none"), kind, base=base)


def test_other_patches_and_tables_are_resized():
    """From a file with patches of 14 pixels, a larger table and a class position."""
    names = backbone_shapes("dinov2", patch=14, table=6)
    tensors = numbered(names)
    rows = np.arange(36, dtype=np.float32).repeat(DIM).reshape(1, 36, DIM)
    tensors["pos_embed"] = np.concatenate([np.full((1, 1, DIM), 2.0, "f4"), rows], 1)
    found, report = _converted(tensors, "dino")
    assert any("class token" in note for note in report.notes)
    token = tensors["cls_token"][0] + 2.0
    np.testing.assert_allclose(found["params/backbone/cls_token"], token)
    table = found["params/backbone/positions"]
    expected = jax.image.resize(
        rows.reshape(6, 6, DIM), (TABLE, TABLE, DIM), "cubic", antialias=True
    )
    np.testing.assert_allclose(table, expected, atol=1e-4)
    # A patch that is enlarged to 16 pixels gives what it gave before.
    patch = np.random.default_rng(1).normal(size=(14, 14, 3))
    axis = vit.antialiased_cubic(14, 16)
    large = np.einsum("yi,xj,ijc->yxc", axis, axis, patch)
    before = np.einsum("ocyx,yxc->o", tensors["patch_embed.proj.weight"], patch)
    kernel = found["params/backbone/patch_embed/kernel"]
    np.testing.assert_allclose(
        np.einsum("yxc,yxco->o", large, kernel), before, rtol=1e-3, atol=1e-3
    )


def test_a_layer_for_all_three_has_no_bias_of_keys_in_dinov3():
    tensors = numbered(backbone_shapes("dinov3"))
    expected, _ = _converted(tensors, "dino", form="dinov3")
    for i in range(2):
        block = f"blocks.{i}.attention."
        parts = [tensors.pop(f"{block}{x}_proj.weight") for x in "qkv"]
        tensors[f"{block}qkv_proj.weight"] = np.concatenate(parts)
        q, v = (tensors.pop(f"{block}{x}_proj.bias") for x in "qv")
        tensors[f"{block}qkv_proj.bias"] = np.concatenate([q, 0 * q, v])
    found, _ = _converted(tensors, "dino", form="dinov3")
    for path, x in expected.items():
        if "/backbone/" in path:
            np.testing.assert_array_equal(x, found[path], err_msg=path)


@pytest.mark.parametrize("own", [False, True])
def test_a_bias_of_keys_in_dinov3_is_refused_unless_it_is_masked(own):
    tensors = numbered(backbone_shapes("dinov3"))
    attention = "blocks.1.attention."
    fused = "blocks.1.attn.qkv" if own else f"{attention}qkv_proj"
    parts = [tensors.pop(f"{attention}{x}_proj.weight") for x in "qkv"]
    tensors[f"{fused}.weight"] = np.concatenate(parts)
    q, v = (tensors.pop(f"{attention}{x}_proj.bias") for x in "qv")
    tensors[f"{fused}.bias"] = np.concatenate([q, 0 * q + 0.5, v])
    with pytest.raises(MisfitError, match=rf"'{fused}.bias': expected 0 in .* to 0.5"):
        _converted(tensors, "dino", form="dinov3")
    if own:
        mask = np.concatenate([0 * q + 1, 0 * q, 0 * v + 1])
        tensors[f"{fused}.bias_mask"] = mask
        found, _ = _converted(tensors, "dino", form="dinov3")
        bias = found["params/backbone/blocks_1/attn/value/bias"]
        np.testing.assert_array_equal(bias.reshape(-1), v)


def test_a_file_of_the_other_form_does_not_fit():
    with pytest.raises(MisfitError):
        _converted(numbered(backbone_shapes("dinov3")), "dino", form="dinov2")
