"""bucket://, a scheme of epath whose files are in a local folder.

Whatever takes an address for the name of a local file does not find them there.
"""

from pathlib import Path
from typing import ClassVar

from etils import epath


@epath.register_path_cls("bucket://")
class Bucket:
    """Makes a path in the folder of an address."""

    folder: ClassVar[Path]

    def __new__(cls, address: str):
        return epath.Path(cls.folder / address.removeprefix("bucket://"))
