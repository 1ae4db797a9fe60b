"""Keeps the partial files of an evaluation whose output may be in a bucket.

A bucket has neither locks nor files that grow. A process therefore works on local
copies of the partial files, and copies that of its share back now and then.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from data_pipeline.errors import printable
from vis_jax.evaluate.merge import RESULTS, SCORES, TRUTH
from vis_jax.evaluate.shares import Share, partial_files, partial_name, share_of
from vis_jax.paths import is_remote, naming_bucket

_EVERY = 60.0  # seconds between two copies of a growing file


class PartialFolder:
    """The local folder of the partial files of an output folder; see `partial_folder`.

    On a disk it is the output folder itself, and `fetch`, `keep` and `publish` do
    nothing.

    Args:
      output: folder of the evaluation.
      path: the local folder.
      remote: whether `output` is in a bucket.
    """

    def __init__(self, output: epath.Path, path: Path, *, remote: bool) -> None:
        self.output, self.path, self.remote = output, path, remote
        self._kept = 0.0
        self._known: set[Share] = set()  # shares with files copied in either direction

    def fetch(self, own: Share | None = None) -> None:
        """Copies partial files from the bucket.

        Args:
          own: all that is needed to predict this share are its file, and those of jobs
            with another number of shares; None = all files, to merge them.
        """
        if not self.remote or not self.output.exists():
            return
        for file in self.output.iterdir():
            share = share_of(file.name)
            if share is None or (own and share != own and share.total == own.total):
                continue
            file.copy(self.path / file.name, overwrite=True)
            self._known.add(share)

    def keep(self, share: Share) -> None:
        """Copies the partial file of a share to the bucket."""
        file = self.path / partial_name(share)
        if self.remote and file.exists():
            self.output.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(self.output / file.name, overwrite=True)
            self._kept = time.monotonic()
            self._known.add(share)

    def keeping(
        self, share: Share, tell: Callable[[int], None]
    ) -> Callable[[int], None]:
        """Wraps `tell` of `evaluate_share` to copy the file once a minute.

        A copy that fails is a warning, as the next one may succeed.
        """

        def tell_and_keep(count: int) -> None:
            tell(count)
            if time.monotonic() - self._kept <= _EVERY:
                return
            try:
                self.keep(share)
            except Exception as error:  # any file system's error
                self._kept = time.monotonic()
                text = f"{self.output}: results up to here are not there yet: {error}"
                print(printable(f"warning: {text}"), file=sys.stderr)

        return tell_and_keep

    def publish(self) -> None:
        """Copies the merged files to the bucket, and removes merged partial files."""
        if not self.remote:
            return
        for name in (RESULTS, TRUTH, SCORES):
            epath.Path(self.path / name).copy(self.output / name, overwrite=True)
        # Not those that another evaluation has written meanwhile.
        merged = self._known.difference(partial_files(self.path))
        for share in merged:
            (self.output / partial_name(share)).unlink(missing_ok=True)


@contextmanager
def partial_folder(
    output: str | os.PathLike, share: Share | None = None
) -> Iterator[PartialFolder]:
    """Opens the partial files of an output folder, on a disk or in a bucket.

    Args:
      output: folder of the evaluation.
      share: share of this process, if it predicts one; see `PartialFolder.fetch`.

    Raises:
      ValueError: as the enclosed work does, with the names of files in the bucket.
    """
    if not is_remote(output):
        yield PartialFolder(epath.Path(output), Path(output), remote=False)
        return
    place = epath.Path(output)
    with tempfile.TemporaryDirectory() as name, naming_bucket(name, place):
        folder = PartialFolder(place, Path(name), remote=True)
        folder.fetch(share)
        yield folder
