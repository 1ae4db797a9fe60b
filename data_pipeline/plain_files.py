"""Makes TensorFlow's image decoder see the same pixels as the readers.

TensorFlow decodes JPEG and PNG and ignores Exif. It reads nearly all files directly;
the readers decode the others and pass them on as PNGs.
"""

from functools import partial
from io import BytesIO
from pathlib import Path

import tensorflow as tf

from data_pipeline.errors import DataError
from data_pipeline.images import (
    check_inside,
    encode_png,
    is_plain,
    open_image,
    read_rgb,
)


class PlainFiles:
    """The image files of a folder.

    Args:
      root: folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, bool] = {}

    def has(self, path: Path) -> bool:
        """Whether TensorFlow may read a file directly; each file is checked once."""
        if path not in self._known:
            try:
                check_inside(path, self._root)
                with open_image(path, partial(DataError, path)) as image:
                    self._known[path] = is_plain(image)
            except DataError:  # reported when the file is read
                return False
        return self._known[path]

    def read(self, path: tf.Tensor, plain: tf.Tensor) -> tf.Tensor:
        """Reads a file, or a PNG with its pixels, in the graph: string [].

        Args:
          path: string [].
          plain: bool [], from `has`.
        """
        content = tf.cond(
            plain,
            lambda: tf.io.read_file(path),
            lambda: tf.numpy_function(self._as_plain, [path], tf.string),
        )
        return tf.ensure_shape(content, [])

    def _as_plain(self, path: bytes) -> bytes:
        file = Path(path.decode())
        check_inside(file, self._root)
        return as_plain(file, place=file)


def as_plain(file: Path | bytes, *, place: Path | str) -> bytes:
    """Returns the content of an image file, or of a PNG with its pixels.

    Args:
      file: its path or content.
      place: name of the file in messages.

    Raises:
      DataError: the readers reject the file.
    """
    fail = partial(DataError, place)
    with open_image(BytesIO(file) if isinstance(file, bytes) else file, fail) as image:
        if is_plain(image):
            return file.read_bytes() if isinstance(file, Path) else file
        return encode_png(read_rgb(image, fail))
