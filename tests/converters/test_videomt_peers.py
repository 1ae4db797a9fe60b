"""Models of transformers with random weights compute the same here (extra peer)."""

import jax
import numpy as np
import pytest

from tests.golden.eomt import shapes_of
from vis_jax.converters.load import convert_tensors
from vis_jax.settings import read_settings
from vis_jax.systems.videomt import Settings, build_model
from vis_jax.systems.videomt_loss import look_and_carry
from vis_jax.systems.videomt_model import Model

SIDE, FRAMES = 64, 3
SIZES = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE,
    patch_size=16, num_register_tokens=2, num_blocks=2, num_queries=7,
    num_upscale_blocks=2, num_labels=5,
)  # fmt: skip


def theirs(kind):
    """A model of transformers whose parameters are all drawn anew."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")
    given = {"intermediate_size": 128} if "Dinov3" in kind else {}
    model = getattr(transformers, f"{kind}ForUniversalSegmentation")(
        config(**SIZES, **given, layer_norm_eps=1e-5 if given else 1e-6)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.normal_(0.0, spread)
        model.attn_mask_probs.zero_()
    return model.eval()


def ours(model, form, propagation):
    """The same model, by its weights."""
    backbone = dict(form=form, dim=32, depth=3, heads=2, registers=2, table=SIDE // 16)
    settings = dict(
        num_classes=5, backbone=backbone, queries=7, decoder=dict(blocks=2),
        propagation=propagation,
    )  # fmt: skip
    built = build_model(read_settings(Settings, dict(model=settings)))
    tensors = {name: x.numpy() for name, x in model.state_dict().items()}
    kind = "videomt_huggingface"
    variables, report = convert_tensors(tensors, shapes_of(built), kind)
    assert not report.new
    return built, variables


@pytest.mark.parametrize(
    ("kind", "form", "propagation"),
    [
        ("Eomt", "dinov2", "none"),
        ("EomtDinov3", "dinov3", "none"),
        ("Videomt", "dinov2", "fusion"),
    ],
)
def test_transformers_computes_the_same_over_a_clip(kind, form, propagation):
    torch = pytest.importorskip("torch")
    model = theirs(kind)
    built, variables = ours(model, form, propagation)
    frames = np.random.default_rng(0).normal(size=(FRAMES, SIDE, SIDE, 3))
    frames = frames.astype(np.float32)
    pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        found = model(pixels[None] if kind == "Videomt" else pixels)

    @jax.jit
    def run(variables, frames):
        tokens = built.apply(variables, frames, method=Model.encode)
        grid = built.backbone.grid(SIDE, SIDE)

        def frame(entered, tokens):
            _, one, after = look_and_carry(
                built, variables, entered, tokens[None], grid
            )
            return after, one

        begin = built.apply(variables, 1, method=Model.first)
        return jax.lax.scan(frame, begin, tokens)[1]

    expected = found.class_queries_logits, found.masks_queries_logits
    for x, y in zip(jax.device_get(run(variables, frames)), expected, strict=True):
        largest = np.abs(y.numpy()).max()
        assert largest > 1
        np.testing.assert_allclose(x[:, 0], y.numpy(), atol=1e-4 * largest)
