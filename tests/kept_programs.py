"""Cache of compiled programs, kept between test runs."""

import shutil
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".jax_cache"
LIMIT = 400_000_000  # bytes; ten times the output of a full test run


def limit(folder: Path, most: int = LIMIT) -> None:
    """Deletes the oldest programs of a folder, down to half of `most` bytes."""
    files = [(path, path.stat()) for path in folder.glob("*-cache")]
    left = sum(stat.st_size for _, stat in files)
    if left <= most:
        return
    for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
        if left <= most // 2:
            return
        path.unlink(missing_ok=True)
        left -= stat.st_size


def copy(source: Path, target: Path) -> None:
    """Copies the programs of a folder, if it exists, into another."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*-cache"):
        if not (target / path.name).exists():
            shutil.copy2(path, target)
