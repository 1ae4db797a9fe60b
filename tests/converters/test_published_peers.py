"""Published weights compute in other libraries what they compute here (extra peer)."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.converters import test_vgg as vgg
from tests.golden import mask2former, mask_rcnn
from tests.golden.cases import load, nchw, nhwc
from tests.recipes import recipe
from vis_jax.backbones.resnet import ResNet
from vis_jax.commands.convert import fields_of_model
from vis_jax.converters.publish import publish
from vis_jax.converters.safetensors_file import write_safetensors
from vis_jax.converters.sizes import check_config, config_of
from vis_jax.detectors.two_stage import BOX_SIDE, MASK_SIDE
from vis_jax.params import flatten, unflatten
from vis_jax.systems.ifr import build_model
from vis_jax.systems.osmn.network import OSMN

MEAN, SPREAD = (123.675, 116.280, 103.530), (58.395, 57.120, 57.375)


def query_run():
    """A small Mask2Former-VIS with a Swin transformer."""
    return recipe("mask2former_vis_swint", "debug", {"model.num_classes": 3})


def drawn(shapes):
    """Random variables that keep values of about one size, layer by layer."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        module, _, name = path.rpartition("/")
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape)
        if name == "kernel":
            inputs = max(np.prod(leaf.shape[:-1]), 1)
            return rng.normal(size=leaf.shape) / np.sqrt(inputs)
        return 0.1 * rng.normal(size=leaf.shape)

    flat = {path: draw(path, leaf) for path, leaf in flatten(shapes).items()}
    return unflatten({path: x.astype(np.float32) for path, x in flat.items()})


def tensors_of(published):
    torch = pytest.importorskip("torch")
    return {name: torch.from_numpy(x) for name, x in published.tensors.items()}


def near(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_torchvisions_mask_rcnn_computes_the_same():
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchvision.models.detection")
    case = load("maskrcnn_r50_fpn_torchvision")
    model = mask_rcnn.model_of_case(case, np.array([[64, 64]]))
    variables = drawn(mask_rcnn.shapes_of(model))
    classes = variables["params"]["box_head"]["class_logits"]["bias"].size
    theirs = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=classes
    ).eval()
    published = publish(variables, "mask_rcnn_torchvision")
    assert not published.left
    theirs.load_state_dict(tensors_of(published), strict=True)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(1, 64, 64, 3)).astype(np.float32)
    boxes, masks = (
        rng.normal(size=(2, side, side, 256)).astype(np.float32)
        for side in (BOX_SIDE, MASK_SIDE)
    )

    @jax.jit
    def ours(variables, images, boxes, masks):
        def everything(self):
            features = self.features(images)
            return (
                features,
                self.rpn(features),
                self.box_head(boxes),
                self.mask_head(masks),
            )

        return model.apply(variables, method=everything)

    features, rpn, box, mask = ours(variables, images, boxes, masks)
    with torch.no_grad():
        found = theirs.backbone(torch.from_numpy(nchw(images)))
        objectness, _ = theirs.rpn.head(list(found.values()))
        heads = theirs.roi_heads
        logits, deltas = heads.box_predictor(
            heads.box_head(torch.from_numpy(nchw(boxes)))
        )
        pixels = heads.mask_predictor(heads.mask_head(torch.from_numpy(nchw(masks))))
    for level, expected in zip(found.values(), features, strict=True):
        near(nhwc(level.numpy()), expected)
    flat = [nhwc(level.numpy()).reshape(1, -1) for level in objectness]
    near(np.concatenate(flat, axis=1), rpn.objectness_logits)
    # Their background is first, ours last; theirs has a box and a mask, too.
    near(np.roll(logits.numpy(), -1, axis=1), box.class_logits)
    near(deltas.numpy()[:, 4:].reshape(2, -1, 4), np.reshape(box.deltas, (2, -1, 4)))
    near(nhwc(pixels.numpy())[..., 1:], mask)


def test_torchvisions_resnet_computes_the_same():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    case = load("maskrcnn_r50_fpn_torchvision")
    model = mask_rcnn.model_of_case(case, np.array([[64, 64]]))
    variables = drawn(mask_rcnn.shapes_of(model))
    theirs = models.resnet50().eval()
    missing, unknown = theirs.load_state_dict(
        tensors_of(publish(variables, "resnet")), strict=False
    )
    # PyTorch starts its counters of batches at 0.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert (missing, unknown) == (["fc.weight", "fc.bias"], [])
    images = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype(np.float32)
    own = {name: tree["backbone"] for name, tree in variables.items()}
    features = jax.jit(ResNet("50").apply)(own, images)
    with torch.no_grad():
        x = theirs.conv1(torch.from_numpy(nchw(images)))
        x = theirs.maxpool(theirs.relu(theirs.bn1(x)))
        for stage in range(1, 5):
            x = getattr(theirs, f"layer{stage}")(x)
            near(nhwc(x.numpy()), features[f"res{stage + 1}"])


def test_torchvisions_vgg_computes_the_same():
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    # Few channels: half of each layer is lost to the ReLU.
    inner = jax.tree.map(lambda x: 2 * x, drawn(vgg._shapes()))
    # Both trunks are that of torchvision.
    modulator = inner["params"]["osmn"]["modulator"]
    inner["params"]["osmn"]["seg"] |= modulator["trunk"]
    hidden = vgg.HIDDEN
    with torch.device("meta"):  # allocates nothing
        theirs = models.VGG(torchvisions_layers(models), init_weights=False).eval()
        theirs.avgpool = torch.nn.Identity()
        theirs.classifier[0] = torch.nn.Linear(vgg.WIDTHS[-1] * vgg.SIDE**2, hidden)
        theirs.classifier[3] = torch.nn.Linear(hidden, hidden)
        theirs.classifier[6] = torch.nn.Identity()
    tensors = tensors_of(publish(inner, "vgg16"))
    theirs.load_state_dict(tensors, strict=True, assign=True)
    side = 32 * vgg.SIDE
    images = np.random.default_rng(1).normal(size=(2, side, side, 3))
    images = images.astype(np.float32)
    own = {name: tree["osmn"] for name, tree in inner.items()}
    head = modulator["fc8"]
    model = OSMN(widths=vgg.WIDTHS, hidden=hidden)
    factors = jax.jit(partial(model.apply, method="modulate"))(own, images)
    shared = jax.jit(partial(model.apply, method="features"))(own, images)
    with torch.no_grad():
        found = theirs(torch.from_numpy(nchw(images))).numpy()
        early = theirs.features[:10](torch.from_numpy(nchw(images))).numpy()
    assert np.ptp(found, axis=0).max() > 0.1  # the image matters
    near(found @ head["kernel"] + head["bias"], factors)
    near(nhwc(early), shared.pooled)


def torchvisions_layers(models):
    """The layers of VGG-16 in a few channels."""
    sizes = [[w] * depth for w, depth in zip(vgg.WIDTHS, (2, 2, 3, 3, 3), strict=True)]
    return models.vgg.make_layers([x for block in sizes for x in (*block, "M")])


def test_transformers_mask2former_computes_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run = query_run()
    model = build_model(run)
    variables = drawn(mask2former.shapes_of(model))
    content = config_of(fields_of_model(run), ["a", "b", "c"])
    published = publish(variables, "huggingface")
    assert not published.left
    (tmp_path / "config.json").write_text(json.dumps(content))
    path = tmp_path / "model.safetensors"
    write_safetensors(path, published.tensors, metadata={"format": "pt"})
    theirs, info = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    # The weights of a loss, and a norm of the whole Swin that no detector uses.
    assert set(info["missing_keys"]) <= {
        "criterion.empty_weight",
        "model.pixel_level_module.encoder.swin.layernorm.bias",
        "model.pixel_level_module.encoder.swin.layernorm.weight",
    }
    images = np.random.default_rng(1).integers(0, 256, (1, 1, 64, 96, 3), np.uint8)
    sizes, valid = np.array([[64, 96]], np.int32), np.ones((1, 1), bool)

    @jax.jit
    def ours(variables, images, sizes, valid):
        out, features = model.apply(variables, images, sizes, valid, False)
        masks = jnp.einsum(
            "btqc,bthwc->btqhw", out.mask_embeds[-1], features.mask_features
        )
        return out.class_logits[-1], masks[:, 0]

    logits, masks = ours(variables, images, sizes, valid)
    pixels = ((images[:, 0] - np.array(MEAN)) / np.array(SPREAD)).astype(np.float32)
    with torch.no_grad():
        found = theirs.eval()(pixel_values=torch.from_numpy(nchw(pixels)))
    near(found.class_queries_logits.numpy(), logits)
    near(found.masks_queries_logits.numpy(), masks)


def test_our_own_config_json_is_the_one_that_is_read():
    fields = fields_of_model(query_run())
    content = json.loads(json.dumps(config_of(fields, ["a", "b", "c"])))
    assert check_config(content, fields, decoder=True)
    content["backbone_config"]["window_size"] = 7
    with pytest.raises(ValueError, match="window_size is 7, the config has"):
        check_config(content, fields, decoder=True)
    del fields["model.backbone.window"]
    with pytest.raises(ValueError, match="layout huggingface: expected a Swin"):
        config_of(fields, [])
