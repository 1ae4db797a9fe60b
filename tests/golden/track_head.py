"""Our tracking head, online association and match loss on the stored case.

The authors' memory holds features, ours embeddings of them: the comparison keeps the
features on the side. Letters: N detections of a frame, at most; M slots.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.compiled import compiled
from tests.golden.cases import Case, nhwc
from tests.golden.golden_weights import uniform
from vis_jax.association.track_head import TrackHead
from vis_jax.converters.mask_rcnn import roi_kernel
from vis_jax.converters.transforms import kernel, same
from vis_jax.losses.identity import match_loss
from vis_jax.ops.assignment import match_logits
from vis_jax.structures import Clip, Detections
from vis_jax.trackers.mask_track import Settings, build, match_scores


class Pairs(NamedTuple):
    """Objects of P pairs of frames that are trained on, by the case's notes."""

    keys: list[list[int]]  # [P], of the key frame
    references: list[list[int]]  # [P], of the reference frame

    def split(self, flat: np.ndarray) -> np.ndarray:
        """Values of all objects of key frames as [P, N], padded with 0."""
        size = max(map(len, self.keys))
        ends = np.cumsum([len(objects) for objects in self.keys])
        parts = np.split(flat, ends[:-1])
        return np.stack([np.pad(part, (0, size - len(part))) for part in parts])


class Beside(NamedTuple):
    """Content of the authors' memory that ours lacks."""

    features: np.ndarray  # [M, 256, 7, 7]
    scores: np.ndarray  # [M]


def compare(case: Case) -> dict[str, np.ndarray]:
    """All stored arrays as we compute them."""
    head, variables = converted(case)
    results = training_results(case, head, variables)
    for sequence in sorted({x.split("/")[1] for x in case.arrays if x[:4] == "ids/"}):
        results |= association_results(case, head, variables, sequence)
    return results


def converted(case: Case):
    """The head and its converted weights."""
    width = case.manifest["settings"]["fc_out_channels"]
    head = TrackHead(width=width)
    channels, *sides = features_shape(case)
    region = jax.ShapeDtypeStruct((1, *sides, channels), jnp.float32)
    shapes = jax.eval_shape(head.init, jax.random.key(0), region)
    weights = case.weights()

    def layer(ours: str, official: str, transform):
        entry = shapes["params"][ours]
        return {
            ours: {
                "kernel": transform(
                    weights[f"{official}.weight"], entry["kernel"].shape
                ),
                "bias": same(weights[f"{official}.bias"], entry["bias"].shape),
            }
        }

    params = layer("fc1", "track_head.fcs.0", roi_kernel)
    params |= layer("fc2", "track_head.fcs.1", kernel)
    return head, {"params": params}


def features_shape(case: Case) -> tuple[int, int, int]:
    """Returns the shape of a region's features, channels first."""
    settings = case.manifest["settings"]
    side = settings["roi_feat_size"]
    return settings["in_channels"], side, side


def most_rows(case: Case, prefix: str, ending: str) -> int:
    """The largest number of rows among arrays of this kind, at least 1."""
    names = (x for x in case.arrays if x.startswith(prefix) and x.endswith(ending))
    return max([1, *(len(case.arrays[name]) for name in names)])


def settings_of(case: Case) -> Settings:
    """The settings of the authors' code."""
    detection, iou, category = case.manifest["settings"]["match_coeff"]
    return Settings(
        detection=float(detection), iou=float(iou), category=float(category)
    )


def association_results(case: Case, head, variables, sequence: str):
    """Identities, scores and the memory after each frame of one sequence."""
    settings = settings_of(case)
    slots = most_rows(case, "memory/", "/labels") + 1
    size = most_rows(case, "det/", "/labels")
    tracker = build(settings, slots)
    track, start = compiled(tracker.track), compiled(tracker.start)
    score = compiled(lambda bank, found: match_scores(bank, found, settings))
    apply = compiled(head.apply)
    clip = Clip(
        np.zeros((1, 1, 1, 3), np.uint8), np.ones(1, bool), np.ones(2, np.int32)
    )
    features = np.zeros((slots, *features_shape(case)), np.float32)
    beside = Beside(features, np.zeros(slots))
    bank, results = None, {}
    frames = sum(name.startswith(f"ids/{sequence}/") for name in case.arrays)
    for frame in range(frames):
        key = f"{sequence}/{frame}"
        stored = {
            name: case.arrays[f"det/{key}/{name}"]
            for name in ("boxes", "labels", "features")
        }
        count = len(stored["boxes"])
        found = detections(stored, size, lambda x: apply(variables, x))
        if bank is None:
            bank = start(clip, found)
        scores = jax.tree.map(
            lambda x, n=count, m=int(bank.tracks): np.asarray(x)[:n, : 1 + m],
            score(bank, jax.tree.map(lambda x: x[0], found)),
        )
        bank, tracked = track(variables, bank, clip, found)
        ids = np.asarray(tracked.track_ids)[0, :count]
        remember(beside, ids, stored)
        results[f"ids/{key}"] = official_ids(ids, scores.values)
        results[f"log_softmax/{key}"] = scores.log_probs
        results[f"comp_scores/{key}"] = scores.values
        results |= memory_results(key, bank, beside)
    return results


def detections(stored: dict, size: int, embed) -> Detections:
    """The detections of one frame as a clip of one frame, padded."""
    count = len(stored["boxes"])

    def pad(array, value=0):
        rows = np.full((1, size, *array.shape[1:]), value, array.dtype)
        rows[0, :count] = array
        return rows

    return Detections(
        # Their corners are inclusive, ours are not.
        boxes=pad(stored["boxes"][:, :4] + np.float32([0, 0, 1, 1])),
        scores=pad(stored["boxes"][:, 4]),
        labels=pad(stored["labels"].astype(np.int32)),
        valid=pad(np.ones(count, bool)),
        embeds=embed(pad(np.moveaxis(stored["features"], 1, -1))),
        descriptors=np.zeros((1, size, 0), np.float32),
        mask_logits=np.zeros((1, size, 1, 1), np.float32),
    )


def remember(beside: Beside, ids: np.ndarray, stored: dict) -> None:
    """Updates that content with a frame."""
    for i in np.flatnonzero(ids):
        beside.features[ids[i] - 1] = stored["features"][i]
        beside.scores[ids[i] - 1] = stored["boxes"][i, 4]


def memory_results(key: str, bank, beside: Beside) -> dict[str, np.ndarray]:
    """The memory after a frame in the official form."""
    tracks = int(bank.tracks)
    boxes = np.asarray(bank.boxes)[:tracks] - np.float32([0, 0, 1, 1])
    return {
        f"memory/{key}/boxes": np.column_stack([boxes, beside.scores[:tracks]]),
        f"memory/{key}/labels": np.asarray(bank.labels)[:tracks],
        f"memory/{key}/feature_sum": beside.features[:tracks].sum(axis=(1, 2, 3)),
    }


def official_ids(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """0, 1, .. and -1 for none, from 1, 2, .. and 0 for none.

    The authors' loop leaves an identity with a detection that is overtaken by a better
    one later in the frame, and their results, by identity, keep the later one. Ours
    leaves it with the better one alone.
    """
    official = ids - 1
    columns, best = values.argmax(axis=1), values.max(axis=1)
    for i in np.flatnonzero(ids == 0):
        before = best[:i][columns[:i] == columns[i]]
        if not (before >= best[i]).any():
            official[i] = columns[i] - 1
    return official


def pairs_of_case(case: Case) -> Pairs:
    """The pairs of frames, which only the notes state: 'x0 = 0 1 2 5, .., r0 = 1 0'."""
    notes = " ".join(case.manifest["notes"])
    found = re.findall(r"\b([xr])(\d+) = (\d+(?: \d+)*)", notes)
    sides: dict[str, list[list[int]]] = {"x": [], "r": []}
    for side, _, objects in sorted(found, key=lambda one: int(one[1])):
        sides[side].append([int(number) for number in objects.split()])
    return Pairs(sides["x"], sides["r"])


def training_results(case: Case, head, variables) -> dict[str, np.ndarray]:
    """Logits, loss, its gradients and the share of positives that are right."""
    pairs = pairs_of_case(case)
    keys = jnp.asarray(training_features(case, "x", pairs.keys))
    references = jnp.asarray(training_features(case, "r", pairs.references))
    counts = np.array([len(objects) for objects in pairs.references])
    there = np.arange(references.shape[1])[None] < counts[:, None]
    targets = pairs.split(case.arrays["train/ids"]).astype(np.int32)

    def loss(variables, positive):
        embeds, memory = (head.apply(variables, x) for x in (keys, references))
        logits = jax.vmap(match_logits)(embeds, memory, jnp.asarray(there))
        return match_loss(logits, jnp.asarray(targets), positive), logits

    both = compiled(jax.value_and_grad(loss, has_aux=True))
    results = {}
    for name in ("train", "train_single"):
        positive = pairs.split(case.arrays[f"{name}/weights"]) > 0
        # The authors' code takes an image with one positive for one without any.
        positive &= positive.sum(axis=1, keepdims=True) != 1
        (value, logits), _ = both(variables, positive)
        right = np.asarray(logits).argmax(axis=-1) == targets
        results[f"{name}/loss_match"] = np.asarray(value)[None]
        results[f"{name}/match_acc"] = 100 * right[positive].mean(keepdims=True)
    # The gradients were stored with all regions positive.
    everything = pairs.split(np.ones(len(case.arrays["train/ids"]))) > 0
    _, gradient = both(variables, everything)
    for layer, official in (("fc1", 0), ("fc2", 1)):
        key = f"train/grad/track_head.fcs.{official}.bias"
        results[key] = np.asarray(gradient["params"][layer]["bias"])
    for image, objects in enumerate(pairs.keys):
        scores = np.asarray(logits)[image, : len(objects), : 1 + counts[image]]
        results[f"train/match_score/{image}"] = scores
    return results


def training_features(case: Case, side: str, objects: list[list[int]]) -> np.ndarray:
    """Features of all images [P, N, 7, 7, 256], as the notes of the case say."""
    seed = case.manifest["seed"]
    shape = features_shape(case)
    features = np.zeros((len(objects), max(map(len, objects)), *shape), np.float32)
    for image, numbers in enumerate(objects):
        for i, which in enumerate(numbers):
            noise = uniform(f"tn/{side}{image}/{i}", shape, seed)
            features[image, i] = uniform(f"proto/{which}", shape, seed) + 0.4 * noise
    return nhwc(features)
