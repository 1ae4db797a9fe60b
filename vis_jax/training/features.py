"""Stored features of a frozen encoder, read in training in place of its forward pass.

Frames have few views: the sizes of `data.short_side`, mirrored or not. The only other
random choice is which frames make a clip. A folder has `features.json`, which records
encoder, settings and videos, and for each video and view a NumPy file with the tokens
of the content: float16 [frames, L, S, C]. Axes as in `structures.Batch`.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.clip_sampling import ClipPlan, HasExtent, resized_size
from data_pipeline.datasets.dataset import Video
from data_pipeline.settings import Settings as DataSettings
from vis_jax.formats.disk import naming
from vis_jax.formats.json_checks import write_json
from vis_jax.params import flatten, match_rules
from vis_jax.settings import to_dict
from vis_jax.structures import Batch
from vis_jax.systems.system import Encoder, System
from vis_jax.training.optimizer import Settings as OptimizerSettings
from vis_jax.training.sharding import whole

FILE = "features.json"
VERSION = 1  # version of the folder's layout
AGAIN = "`data cache_features` makes them"
_DTYPE = np.dtype(np.float16)


class FrameView(NamedTuple):
    """Size and orientation of the frames of a video."""

    size: tuple[int, int]  # height, width of the content
    flip: bool


def views_of(video: HasExtent, data: DataSettings) -> tuple[FrameView, ...]:
    """Returns the distinct views of a video that training draws from."""
    sizes = dict.fromkeys(
        resized_size(
            video.height, video.width, side,
            long_side=data.long_side, canvas=data.canvas,
        )
        for side in data.short_side
    )  # fmt: skip
    flips = (*([False] if data.flip < 1 else []), *([True] if data.flip > 0 else []))
    return tuple(FrameView(size, flip) for size in sizes for flip in flips)


def weights_digest(params: Mapping[str, Any], encoder: Encoder) -> str:
    """Returns the SHA-256 of an encoder's weights.

    Args:
      params: parameters of the model.
      encoder: encoder of its system.
    """
    digest = hashlib.sha256()
    for path, value in sorted(flatten(whole(params[encoder.part])).items()):
        array = np.ascontiguousarray(np.asarray(value))
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def description(
    encoder: Encoder, data: DataSettings, videos: Sequence[Video]
) -> dict[str, Any]:
    """Returns everything that features depend on except the weights, as JSON values."""
    names = [(one.name, one.length, one.height, one.width) for one in videos]
    given: dict[str, Any] = {
        **encoder.settings,
        "data.name": data.name,
        "data.split": data.split,
        "data.canvas": data.canvas,
        "data.short_side": sorted(set(data.short_side)),
        "data.long_side": data.long_side,
        "data.flip": "some" if 0 < data.flip < 1 else data.flip,
        "videos": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
    }
    if data.name == "moving_shapes":
        given["data.shapes"] = to_dict(data.shapes)
    found: dict[str, Any] = json.loads(json.dumps(given))
    return found


def _check_frozen(
    params: Mapping[str, Any], encoder: Encoder, optimizer: OptimizerSettings
) -> None:
    """Raises ValueError unless training leaves the encoder as it is."""
    rates = match_rules(params, optimizer.rates)[encoder.part]
    for path, rate in flatten(rates).items():
        if rate != 0:
            raise ValueError(
                f"data.features: expected optimizer.rates 0 for {encoder.part}/.*, as"
                f" stored features do not change, got {rate:g} for"
                f" {encoder.part}/{path}"
            )


class StoredFeatures:
    """A folder of features.

    Args:
      folder: path of the folder.
      encoder: encoder of the system.
      data: settings of the clips.
      videos: videos of the data set.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        data: DataSettings,
        videos: Sequence[Video],
    ) -> None:
        self._folder, self._encoder = folder, encoder
        self._data, self._videos = data, videos

    def check_settings(self) -> None:
        """Checks that the features belong to these settings and videos.

        Raises:
          ValueError: they are missing or do not; names the first difference.
        """
        wanted = description(self._encoder, self._data, self._videos)
        self._check(wanted | {"version": VERSION})

    def check_encoder(
        self, params: Mapping[str, Any], optimizer: OptimizerSettings
    ) -> None:
        """Checks that the features come from this encoder and that it stays frozen.

        Args:
          params: parameters of the model.
          optimizer: optimiser settings of the training.

        Raises:
          ValueError: the encoder has other weights, or it is trained.
        """
        _check_frozen(params, self._encoder, optimizer)
        self._check_weights(params)

    def _check_weights(self, params: Mapping[str, Any]) -> None:
        self._check({"weights": weights_digest(params, self._encoder)})

    def check_complete(self) -> None:
        """Raises ValueError unless there is a file for every view of every video."""
        missing = self.missing()
        if missing:
            index, view = missing[0]
            raise ValueError(
                f"data.features: {self._path(index, view)}: expected a file, got none;"
                f" {len(missing)} are missing, {AGAIN}"
            )

    def _check(self, wanted: Mapping[str, Any]) -> None:
        path = self._folder / FILE
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(
                f"data.features: expected {path}, got no such file; {AGAIN}"
            ) from None
        except ValueError as error:
            raise ValueError(f"data.features: {path}: not JSON: {error}") from error
        found = found if isinstance(found, dict) else {}
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ValueError(
                    f"data.features: {path}: expected features with {name}"
                    f" {_short(value)}, got {_short(found.get(name))}; use another"
                    " folder for these settings"
                )

    def begin(self, params: Mapping[str, Any]) -> None:
        """Records weights, settings and videos, or compares them with the record.

        Raises:
          ValueError: the folder has features of other weights, settings or videos.
        """
        path = self._folder / FILE
        if path.exists():
            self.check_settings()
            self._check_weights(params)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "version": VERSION,
            **description(self._encoder, self._data, self._videos),
            "weights": weights_digest(params, self._encoder),
        }
        write_json(path, content, indent=1)

    def missing(self) -> list[tuple[int, FrameView]]:
        """Returns the videos and views without a file, in order."""
        return [
            (index, view)
            for index, video in enumerate(self._videos)
            for view in views_of(video, self._data)
            if not self._path(index, view).exists()
        ]

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        """Returns which tokens are stored of frames with a content of this size."""
        return self._encoder.inside(size, self._data.canvas)

    @contextmanager
    def writing(
        self, index: int, view: FrameView, shape: tuple[int, ...]
    ) -> Iterator[np.ndarray]:
        """Yields the array of a video and view, whose file appears when it is full.

        Args:
          index: index of the video.
          view: view of its frames.
          shape: shape of the array.

        Raises:
          ValueError: a number is beyond float16.
          OSError: it cannot be written, e.g. the disk is full; names the file.
        """
        path = self._path(index, view)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")  # also replaces that of a killed command
        try:
            with naming(path):
                array = np.lib.format.open_memmap(part, "w+", dtype=_DTYPE, shape=shape)
            yield array
            if not all(np.isfinite(frame).all() for frame in array):
                raise ValueError(
                    f"{self._videos[index].name}: expected features within float16, up"
                    f" to {np.finfo(_DTYPE).max:g}, got larger ones"
                )
            array.flush()
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def joined(
        self, batches: Iterator[dict[str, np.ndarray]], plans: Iterator[list[ClipPlan]]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches with the features of their frames.

        Args:
          batches: batches of clips.
          plans: those that the clips were made by.
        """
        for batch, clips in zip(batches, plans, strict=True):
            frames = batch["images"].shape[1]
            features = np.stack([self._read(plan, frames) for plan in clips])
            yield batch | {"features": features}

    def _read(self, plan: ClipPlan, frames: int) -> np.ndarray:
        """Returns float16 [frames, L, S, C] of a clip, 0 in padding."""
        inside, out = self.inside(plan.size), None
        for row, frame in enumerate(plan.frame_ids):
            path = self._path(plan.video, FrameView(plan.size, bool(plan.flip[row])))
            stored = np.load(path, mmap_mode="r")
            if out is None:
                levels, dim = stored.shape[1], stored.shape[3]
                out = np.zeros((frames, levels, len(inside), dim), _DTYPE)
            out[row][:, inside] = stored[frame]
        if out is None:
            raise ValueError(f"plan: expected frames of video {plan.video}, got none")
        return out

    def _path(self, index: int, view: FrameView) -> Path:
        height, width = view.size
        name = f"{height}x{width}{'_mirrored' if view.flip else ''}.npy"
        return self._folder / f"{index:06d}" / name


def feature_shape(
    encoder: Encoder, variables: dict, canvas: tuple[int, int]
) -> tuple[int, int, int]:
    """Returns L, S and C of the features of a frame.

    Args:
      encoder: encoder of a system.
      variables: variables of its model, or their shapes.
      canvas: height and width in pixels.
    """
    images = jax.ShapeDtypeStruct((1, *canvas, 3), jnp.uint8)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    found = jax.eval_shape(encoder.encode, variables, images, sizes)
    levels, tokens, dim = found.shape[1:]
    return levels, tokens, dim


def with_features(batch: Batch, encoder: Encoder, system: System) -> Batch:
    """Adds the shape of features to the shapes of a batch.

    Args:
      batch: shapes.
      encoder: encoder of the system.
      system: the features are for.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = dict(jax.eval_shape(system.init, key, batch))
    clips, frames, *canvas = batch.images.shape[:4]
    shape = feature_shape(encoder, variables, (canvas[0], canvas[1]))
    features: Any = jax.ShapeDtypeStruct((clips, frames, *shape), _DTYPE)
    return batch._replace(features=features)


def _short(value: Any) -> str:
    return f"{json.dumps(value):.60}"
