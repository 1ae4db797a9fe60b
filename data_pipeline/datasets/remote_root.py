"""Copies packed data sets from a bucket to the local disk, once.

ArrayRecord files are read by many small accesses, from a local disk only.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from etils import epath

from data_pipeline.datasets.ytvis_layout import TFDS_FRAMES, TFDS_VIDEOS
from data_pipeline.errors import DataError
from vis_jax.paths import SCHEMES, copy_folder, is_remote


def on_disk(root: str, field: str) -> str:
    """Returns the folder; raises DataError if it is in a bucket.

    Args:
      root: folder of an unpacked data set.
      field: config field with that folder.
    """
    if is_remote(root):
        raise DataError(root, field=field, expected="a folder on a disk", got=root)
    return root


def local_root(root: str, split: str) -> str:
    """Returns the folder, or a local copy of the split if it is in a bucket.

    The copy is kept in vis_jax/data of $XDG_CACHE_HOME or ~/.cache, so a data set that
    changes in the bucket should get a new name.

    Args:
      root: folder of a data set; in a bucket, one written by `data build_tfds`.
      split: for example "train".

    Raises:
      DataError: the bucket cannot be read, or the data set is not packed.
    """
    if not is_remote(root):
        return root
    try:
        source = epath.Path(root) / split
    except KeyError as error:  # raised by epath for an unknown scheme
        expected = f"a folder on a disk or of {SCHEMES}"
        raise DataError(root, field="data.root", expected=expected, got=root) from error
    if not (source / TFDS_VIDEOS).is_dir():
        expected = f"split {split!r} as `data build_tfds` writes it, or a local folder"
        raise DataError(root, field="data.root", expected=expected, got="no such split")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    digest = hashlib.sha256(root.encode()).hexdigest()[:16]
    home = Path(base) / "vis_jax" / "data" / digest
    if not (home / split).exists():
        _bring(source, home, split)
    return str(home)


def _bring(source: epath.Path, home: Path, split: str) -> None:
    """Copies a split; if several processes do, the first copy is kept."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=home) as temporary:
        made = Path(temporary) / split
        for name in (TFDS_FRAMES, TFDS_VIDEOS):
            copy_folder(source / name, made / name)
        try:
            made.rename(home / split)
        except OSError:
            if not (home / split).exists():
                raise
