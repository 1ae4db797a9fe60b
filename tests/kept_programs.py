"""The folder of compiled programs that is kept between runs of the tests."""

from pathlib import Path

LIMIT = 1_000_000_000  # bytes; several times what one run of all tests leaves


def limit(folder: Path) -> None:
    """Deletes the oldest programs of old code, down to half of LIMIT."""
    files = [(path, path.stat()) for path in folder.glob("*-cache")]
    left = sum(stat.st_size for _, stat in files)
    if left <= LIMIT:
        return
    for path, stat in sorted(files, key=lambda file: file[1].st_mtime):
        if left <= LIMIT // 2:
            return
        path.unlink(missing_ok=True)
        left -= stat.st_size
