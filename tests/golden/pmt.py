"""The decoder of PMT and LVMT on stored features: every stored array."""

import dataclasses

import jax
import numpy as np

from tests.compiled import RUNS_LONG, compiled
from tests.golden.cases import Case
from tests.golden.eomt import shapes_of
from vis_jax.converters.load import convert_tensors
from vis_jax.layers.vit_block import Block
from vis_jax.ops.rotary import rotary_positions
from vis_jax.settings import read_settings
from vis_jax.systems.videomt import Settings, build_model
from vis_jax.systems.videomt_model import Model

# Names that only the other kind of propagation has.
_OTHER = {"fusion": "query_gru.", "gru": "query_updater."}


def compare(case: Case) -> dict[str, np.ndarray]:
    """Stored outputs and intermediates, once with each kind of propagation."""
    settings = settings_of_case(case)
    results: dict[str, np.ndarray] = {}
    for kind, other in _OTHER.items():
        model = dataclasses.replace(settings.model, propagation=kind)
        model = build_model(dataclasses.replace(settings, model=model))
        weights = {n: x for n, x in case.weights().items() if other not in n}
        # The features are those of an encoder that is not stored.
        variables, report = convert_tensors(weights, shapes_of(model), "pmt")
        if any(not path.startswith("params/backbone/") for path in report.new):
            raise ValueError(f"expected the whole decoder, not {report.new}")
        known = {"params": dict(variables["params"])}
        known["params"].pop("backbone")
        known["batch_stats"] = variables["batch_stats"]
        results |= _run(case, model, known, kind)
    return results


def settings_of_case(case: Case) -> Settings:
    """A model whose decoder is that of the case, on the smallest encoder."""
    stored = case.manifest["settings"]
    if stored["intermediate_size"] != stored["hidden_size"]:
        raise ValueError(
            "intermediate_size: expected hidden_size, as the decoders have"
        )
    levels = tuple(range(stored["num_levels"]))
    backbone = dict(
        form="dinov3",
        dim=stored["hidden_size"],
        depth=stored["num_levels"],
        heads=stored["num_attention_heads"],
        patch=stored["patch_size"],
        registers=stored["num_prefix_tokens"] - 1,
    )
    model = dict(
        num_classes=stored["num_classes"],
        backbone=backbone,
        queries=stored["num_queries"],
        decoder=dict(kind="own", blocks=stored["num_blocks"], levels=levels),
    )
    return read_settings(Settings, dict(model=model))


def _run(case: Case, model: Model, variables: dict, kind: str) -> dict[str, np.ndarray]:
    stored = case.manifest["settings"]
    grid, sizes = tuple(stored["grid"]), model.backbone.sizes
    rotary = compiled(lambda: rotary_positions(*grid, sizes.dim // sizes.heads))()
    fuse = compiled(
        lambda variables, levels: model.apply(variables, tuple(levels), method=_fuse),
        compiler_options=RUNS_LONG,
    )
    tokens = fuse(variables, case.arrays["features"])
    look = compiled(
        lambda variables, *x: model.apply(
            variables, *x, grid, method=_frame, mutable=["intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, Block),
        ),
        compiler_options=RUNS_LONG,
    )  # fmt: skip
    results = {"rope/cos": rotary.cos, "rope/sin": rotary.sin, "tokens": tokens[:1]}
    entered = np.asarray(variables["params"]["query"])[None]
    frames = []
    for t in range(stored["frames"]):
        results[f"{kind}/frame/{t}/queries_in"] = entered
        (found, after), kept = look(variables, entered, tokens[t : t + 1])
        blocks = kept["intermediates"]["decoder"]
        last = f"blocks_{model.query_blocks - 1}"
        found["tokens_out"] = blocks[last]["__call__"][0][0]
        found["block_0"] = blocks["blocks_0"]["__call__"][0][0]
        frames.append(found)
        entered = after
    whole = jax.tree.map(lambda *x: np.stack(x), *frames)
    results |= {f"{kind}/{name}": x for name, x in whole.items()}
    results[f"{kind}/masks"] = whole["masks"].swapaxes(0, 1)
    return results | {f"{kind}/carried": entered[0]}


def _fuse(model: Model, levels):
    return model.decoder.fuse(levels)


def _frame(model: Model, entered, tokens, grid):
    looked = model.look(entered, tokens, grid)
    masks = model.masks(looked, grid)
    found = {"logits": model.classify(looked)[0], "masks": masks[0]}
    return found, model.carry(looked, entered)
