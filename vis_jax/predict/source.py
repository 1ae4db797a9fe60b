"""`Source`: the frames of one video."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from vis_jax.predict.sound import Sound
from vis_jax.predict.video_file import DecodedFrame

FOLDER_FPS = Fraction(6)  # YouTube-VIS annotates every fifth frame at 30 fps


@dataclass(frozen=True)
class Source:
    """Frames of one video, read anew by each iteration, never all in memory.

    Iteration yields RGB uint8 [H, W, 3], upright (metadata rotation is applied). A live
    source can be read only once.
    """

    name: str
    path: str  # the file, the folder of the first image, or the address
    height: int  # pixels, of the upright frame; as `width`
    width: int
    num_frames: int | None  # None: unknown until the end
    fps: Fraction  # frames per second; FOLDER_FPS if the source has no rate
    read: Callable[[], Iterator[DecodedFrame]] = field(repr=False)
    # One per frame of a folder; () for other sources.
    file_names: tuple[str, ...] = field(default=(), repr=False)
    live: bool = False
    # Displayed width / height of a pixel; frames are not resampled to it.
    pixel_aspect: Fraction = Fraction(1)
    # Anomalies found by the last complete reading: one line each, with the file.
    warnings: list[str] = field(default_factory=list)
    # Number of frames by the file's headers, possibly wrong; None: not stated.
    said_frames: int | None = None
    sound: Sound | None = None  # audio of the same video
    dynamic_range: str = ""  # "HLG" or "PQ" if frames were tone-mapped
    # Ends a wait for a frame that may never arrive.
    stop: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def likely_frames(self) -> int | None:
        """Number of frames, if it can be told before reading; may be wrong."""
        return self.said_frames if self.num_frames is None else self.num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.pixels for frame in self.read())
