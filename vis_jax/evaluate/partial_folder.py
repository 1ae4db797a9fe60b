"""Keeps the partial files of an evaluation whose output may be in a bucket.

A bucket has neither locks nor files that grow. A process therefore works on local
copies of the partial files, and copies that of its share back now and then.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from etils import epath

from vis_jax.evaluate.merge import RESULTS, SCORES, TRUTH
from vis_jax.evaluate.shares import Share, partial_files, partial_name, share_of
from vis_jax.paths import is_remote

_EVERY = 60.0  # seconds between two copies of a growing file


class PartialFolder:
    """The local folder of the partial files of an output folder.

    On a disk it is the output folder itself, and `fetch`, `keep` and `publish` do
    nothing. A context manager, which begins with `fetch`.

    Args:
      output: folder of the evaluation, on a disk or in a bucket.
    """

    def __init__(self, output: str | os.PathLike) -> None:
        self.remote = is_remote(output)
        self.output = epath.Path(output)
        self.path = Path(output)
        self._stack, self._kept = ExitStack(), 0.0

    def __enter__(self) -> "PartialFolder":
        if self.remote:
            name = self._stack.enter_context(tempfile.TemporaryDirectory())
            self.path = Path(name)
            self.fetch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if self.remote and isinstance(error, ValueError):  # names the bucket's files
            text = str(error).replace(str(self.path), str(self.output))
            raise ValueError(text) from error

    def fetch(self) -> None:
        """Copies the partial files of all shares from the bucket."""
        if not self.remote or not self.output.exists():
            return
        for file in self.output.iterdir():
            if share_of(file.name):
                file.copy(self.path / file.name, overwrite=True)

    def keep(self, share: Share) -> None:
        """Copies the partial file of a share to the bucket."""
        file = self.path / partial_name(share)
        if self.remote and file.exists():
            self.output.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(self.output / file.name, overwrite=True)
            self._kept = time.monotonic()

    def keeping(self, share: Share, tell: Callable[[int], None]) -> Callable:
        """Wraps `tell` of `evaluate_share` to copy the file once a minute."""

        def tell_and_keep(count: int) -> None:
            tell(count)
            if time.monotonic() - self._kept > _EVERY:
                self.keep(share)

        return tell_and_keep

    def publish(self) -> None:
        """Copies the merged files to the bucket, and removes merged partial files."""
        if not self.remote:
            return
        for name in (RESULTS, TRUTH, SCORES):
            epath.Path(self.path / name).copy(self.output / name, overwrite=True)
        left = partial_files(self.path)  # of other evaluations
        for file in self.output.iterdir():
            share = share_of(file.name)
            if share and share not in left:
                file.unlink()
