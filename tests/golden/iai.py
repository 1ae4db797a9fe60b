"""Our IAI on CondInst on the stored case of the released code.

The authors put the identities first in their one-hot maps, then the newcomers, then the
background. Their memories are lists of tokens; the axis of length 1 is that of videos.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.golden.cases import Case, Results, nchw, nhwc
from vis_jax.association import frame_memory
from vis_jax.backbones import resnet
from vis_jax.converters.load import convert_tensors
from vis_jax.detectors.condinst import mask_logits
from vis_jax.detectors.condinst_ids import choose_places
from vis_jax.detectors.fcos import Cells, Places, cells_of, places_of
from vis_jax.evaluate.masks import Sizes, frame_masks
from vis_jax.ops.dynamic_masks import WIDTH
from vis_jax.structures import Clip
from vis_jax.systems import iai
from vis_jax.systems.iai import State, see_frame
from vis_jax.systems.iai_model import IdSettings, Model, ModelSettings
from vis_jax.systems.iai_video import LinkedFrame, report
from vis_jax.training.dry_run import batch_shapes


class Step(NamedTuple):
    """Intermediate results of one frame."""

    levels: tuple  # of the pyramid
    out: tuple  # of the detector
    associated: jax.Array  # what replaces the last stage
    places: tuple  # of the objects
    found: LinkedFrame
    state: State  # after the frame


def settings_of_case(case: Case) -> iai.Settings:
    """Those of the manifest."""
    known = case.manifest["settings"]
    hab = dict(
        self_heads=known["self_heads"], memory_heads=known["attn_heads"],
        interval=known["global_mem_interval"],
    )  # fmt: skip
    model = ModelSettings(
        num_classes=known["num_classes"],
        backbone=resnet.Settings(norm="frozen_stats"),
        ids=IdSettings(count=known["max_obj_num"]),
        hab=frame_memory.Settings(**hab),
    )
    test = iai.TestSettings(
        score=known["cls_score_thr"], id_score=known["id_score_thr"],
        nms=known["nms_iou"], candidates=known["nms_pre"],
        objects=known["max_per_img"], top=known["max_per_img"], capacity="code",
    )  # fmt: skip
    return iai.Settings(model=model, test=test)


def model_of(settings: iai.Settings) -> Model:
    """The network of a system."""
    return iai.build_network(settings)


def shapes_of(settings: iai.Settings) -> dict:
    """Shapes of the variables."""
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    return dict(jax.eval_shape(iai.build(settings).init, jax.random.key(0), batch))


def converted(case: Case, settings: iai.Settings) -> dict:
    """The weights of the case, by the public converter."""
    variables, report = convert_tensors(case.weights(), shapes_of(settings), "iai")
    if report.new:
        raise ValueError(f"expected every parameter to be filled, not {report.new}")
    return variables


def compare(case: Case) -> Results:
    """The stored arrays of the video as we compute them."""
    settings = settings_of_case(case)
    variables, video = converted(case, settings), nhwc(case.arrays["infer/video"])
    model = model_of(settings)
    stages = jax.device_get(jax.jit(nn.apply(_stages, model))(variables, video))
    results = {f"infer/backbone/{n}": nchw(stages[f"res{n + 2}"]) for n in range(4)}
    clip = Clip(
        np.zeros((1, *video.shape[1:]), np.uint8), np.ones(1, bool), np.zeros(2)
    )
    state = jax.jit(functools.partial(iai.start, model, settings))(clip)
    step = jax.jit(functools.partial(_step, case, model, settings))
    steps = []
    for t in range(len(video)):
        features = {name: stages[name][t] for name in ("res3", "res4", "res5")}
        steps.append(jax.device_get(step(variables, state, features)))
        state = steps[-1].state
        results |= _frame(steps[-1], t, settings.model.ids.count)
        if f"dynamic_mask/{t}/input" in case.arrays:
            results |= _masks(steps[-1], f"dynamic_mask/{t}")
    return results | _video(case, settings, steps)


def _stages(model: Model, images):
    return model.backbone(images)


def _step(case: Case, model: Model, settings, variables, state, features) -> Step:
    """One frame, and what is inside."""

    def inside(model: Model, memory, features):
        features = {name: x[None] for name, x in features.items()}
        found, _ = model.hab(features["res5"], memory, False)
        levels = model.detector.levels(features | {"res5": found})
        return levels, model.detector(levels), found

    apply = nn.apply(inside, model)
    levels, out, associated = apply(variables, state.memory, features)
    size = jnp.array(case.manifest["settings"]["img_shape"])
    cells = cells_of(levels)
    one = jax.tree.map(lambda x: x[0], out)
    chosen = choose_places(
        one.dense,
        places_of(cells),
        size,
        first=state.video.tally.frames == 0,
        cells=cells,
        rule=model.rule,
    )
    after, found = see_frame(
        model, settings, variables, state, features, size, jnp.bool_(True)
    )
    return Step(levels, out, associated, chosen, found, after)


def _frame(step: Step, t: int, ids: int) -> Results:
    """Returns the stored values of a frame, except masks; `ids` is N."""
    dim = step.state.memory.local_keys.shape[-1]
    tokens = step.associated[..., dim : 2 * dim].reshape(-1, 1, dim)
    state, memory = step.state, step.state.memory
    count = int(memory.entered[0])
    one_hot = step.found.named.painted[None] == np.arange(ids + 1).reshape(-1, 1, 1)
    results = {
        "lstt_output/0": tokens,
        "id_masks_packed": np.packbits(one_hot),
        "cls_scores": _class_scores(step, ids),
        "max_inst_id": state.video.issued,
        "new_inst_exist": np.int64(step.found.named.new),
        "memory/long_k": _newest_first(memory.global_keys, count),
        "memory/long_v": _newest_first(memory.global_values, count),
        "memory/short_k": nchw(memory.local_keys),
        "memory/short_v": nchw(memory.local_values),
        "memory/frame_step": np.concatenate([memory.step, memory.last]),
    }
    results = {f"infer/{t}/{name}": x for name, x in results.items()}
    return results | _head(step, t)


def _newest_first(stored: np.ndarray, count: int) -> np.ndarray:
    """Tokens of the frames in the global memory, in the authors' order."""
    return stored[0, :count][::-1].reshape(-1, 1, stored.shape[-1])


def _class_scores(step: Step, ids: int) -> np.ndarray:
    """By identity, with a column for no class."""
    slots, scores = step.found.named.slots, step.found.objects.class_scores
    found = np.zeros((1, ids, scores.shape[1] + 1), np.float32)
    found[0, slots[slots >= 0], :-1] = scores[slots >= 0]
    return found


def _cells(levels) -> Cells:
    return tuple(x.shape[1:3] for x in levels)


def _head(step: Step, t: int) -> Results:
    """Pyramid and outputs of one frame by level."""
    results, start = {}, 0
    dense = step.out.dense
    outputs = (
        dense.class_logits, dense.id_logits, dense.distances,
        dense.centre_logits[..., None], dense.filters,
    )  # fmt: skip
    for number, (height, width) in enumerate(_cells(step.levels)):
        results[f"infer/{t}/fpn/{number}"] = nchw(step.levels[number])
        end = start + height * width
        for kind, values in enumerate(outputs):
            maps = values[:, start:end].reshape(1, height, width, -1)
            results[f"infer/{t}/head/{kind}/{number}"] = nchw(maps)
        start = end
    return results | {f"infer/{t}/head/5": nchw(step.out.features)}


@functools.cache
def _places(cells: Cells) -> Places:
    return jax.device_get(jax.jit(functools.partial(places_of, cells))())


def _masks(step: Step, prefix: str) -> Results:
    """Returns input, weights and output of the dynamic convolutions."""
    out = jax.tree.map(lambda x: x[0], step.out)
    index = step.places.places[step.places.valid]
    places = _places(_cells(step.levels))
    at = Places(*(x[index] for x in places))
    logits = jax.jit(mask_logits)(out.dense.filters[index], out.features, at)
    height, width, channels = out.features.shape
    middle = np.stack(np.meshgrid(np.arange(width), np.arange(height))) * 8 + 4
    reach = 8.0 * at.strides[:, None, None, None]
    relative = (at.locations[:, :, None, None] - middle) / reach
    features = np.broadcast_to(
        np.moveaxis(out.features, -1, 0), (len(index), channels, height, width)
    )
    shapes = {
        "weight0": (WIDTH, channels + 2), "weight1": (WIDTH, WIDTH),
        "weight2": (1, WIDTH), "bias0": (WIDTH,), "bias1": (WIDTH,), "bias2": (1,),
    }  # fmt: skip
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    parts = np.split(np.asarray(out.dense.filters)[index], ends[:-1], axis=1)
    results = {
        f"{prefix}/input": np.concatenate([relative, features], 1).reshape(
            1, -1, height, width
        ),
        # Stored before the enlargement, which leaves these cells as they are.
        f"{prefix}/logits": np.asarray(logits)[None, :, 1::2, 1::2],
    }
    for part, (name, shape) in zip(parts, shapes.items(), strict=True):
        flat = part.reshape(-1, *shape[1:])
        results[f"{prefix}/{name}"] = flat[..., None, None] if len(shape) > 1 else flat
    return results


def _video(case: Case, settings: iai.Settings, steps: list[Step]) -> Results:
    """Masks at the original size, by frame and by result, and the results."""
    known = case.manifest["settings"]
    sizes = Sizes(
        tuple(known["pad_shape"]), tuple(known["img_shape"]), tuple(known["ori_shape"])
    )
    found = jax.tree.map(lambda *x: np.stack(x), *[step.found for step in steps])
    logits = found.objects.mask_logits.astype(np.float64)
    masks = (1 / (1 + np.exp(-logits)) - 0.5).astype(np.float32)
    rules, last = iai.video_rules(settings), steps[-1].state.video
    tell = jax.jit(functools.partial(report, rules))
    seen = jax.device_get(tell(last, found.named.slots, masks))
    frames = frame_masks(
        seen,
        sizes,
        iai.build(settings).render,
        rows=range(len(steps)),
        at_once=len(steps),
    )
    results, areas = {}, np.full((len(seen.valid), len(steps)), -1)
    for t, frame in enumerate(frames):
        issued = int(steps[t].state.video.issued)
        areas[:issued, t] = 0
        areas[seen.slots[t][frame.objects], t] = frame.masks.sum(axis=(1, 2))
        results[f"infer/{t}/pred_mask_area"] = areas[:issued, t].astype(np.float32)
    flat = seen.class_probs.ravel()
    best = np.argsort(-flat, kind="stable")[: settings.test.top]
    ids, labels = np.divmod(best, seen.class_probs.shape[1])
    return results | {
        "infer/scores": flat[best],
        "infer/labels": labels,
        "infer/mask_areas": areas[ids],
    }
