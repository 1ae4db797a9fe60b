"""What a source of frames is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from vis_jax.predict.video_file import Frame

FOLDER_FPS = Fraction(6)  # YouTube-VIS annotates every fifth frame of 30 a second


@dataclass(frozen=True)
class Source:
    """Frames of one video, read anew by each iteration and never held together.

    Iteration gives uint8 [H, W, 3], RGB, upright (rotation in the metadata is done). A
    live source can be read only once.
    """

    name: str
    path: str  # the file, the folder of the first image, or the address
    height: int  # pixels, of the upright frame
    width: int
    num_frames: int | None  # None: not known before the end
    fps: Fraction  # frames a second; of what has no rate, FOLDER_FPS
    read: Callable[[], Iterator[Frame]] = field(repr=False)
    # One per frame of a folder; () for what has none.
    file_names: tuple[str, ...] = field(default=(), repr=False)
    live: bool = False
    # Width by height of a pixel as a player shows it; frames are as they are stored.
    pixel_aspect: Fraction = Fraction(1)
    # What was odd about the frames when they were last read to their end: one line
    # each, with the name of the file.
    warnings: list[str] = field(default_factory=list)
    # Frames by what a file says of itself, which may be wrong; None: it does not say.
    said_frames: int | None = None
    # Ends the wait for a frame that may never come.
    stop: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def likely_frames(self) -> int | None:
        """How many frames there are, as far as can be told before they are read."""
        return self.said_frames if self.num_frames is None else self.num_frames

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.pixels for frame in self.read())
