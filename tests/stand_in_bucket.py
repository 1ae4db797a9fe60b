"""Registers bucket://, an epath scheme whose files are in a local folder.

Code that mistakes an address for a local file name does not find them.
"""

from pathlib import Path
from typing import ClassVar

from etils import epath


@epath.register_path_cls("bucket://")
class Bucket:
    """Maps an address to a path in the folder."""

    folder: ClassVar[Path]

    def __new__(cls, address: str):
        return epath.Path(cls.folder / address.removeprefix("bucket://"))
