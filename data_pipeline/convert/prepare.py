"""Brings a folder in any known layout into that of the reader."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_pipeline.convert import (
    from_coco,
    from_cvat,
    from_davis,
    from_label_studio,
    from_labelme,
    from_mots,
    from_sam3,
    from_sav,
    from_yolo,
    from_ytvis,
)
from data_pipeline.convert.foreign import (
    Foreign,
    Found,
    Linker,
    Prepared,
    describe,
)
from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.convert.write_split import write_split
from data_pipeline.errors import DataError

# In the order in which they are tried; what each is recognised by.
LOOKED_FOR = {
    "ytvis": from_ytvis.LOOKED_FOR,
    "coco": from_coco.LOOKED_FOR,
    "davis": from_davis.LOOKED_FOR,
    "mots": from_mots.LOOKED_FOR,
    "cvat": from_cvat.LOOKED_FOR,
    "label_studio": from_label_studio.LOOKED_FOR,
    "labelme": from_labelme.LOOKED_FOR,
    "yolo": from_yolo.LOOKED_FOR,
    "sav": from_sav.LOOKED_FOR,
    "sam3": from_sam3.LOOKED_FOR,
}


class Outcome(NamedTuple):
    """What was done."""

    found: Found
    prepared: Prepared
    written: bool  # False: it was there already


def recognise(source: SourceFolder, layout: str | None, category: str) -> Found:
    """Finds the layout of a folder.

    Args:
      source: the folder and the split.
      layout: the only one to try; None tries all.
      category: name of the category of layouts that have none.

    Raises:
      DataError: none was found; lists what was looked for. Or a defect of the files.
    """
    finders: dict[str, Callable[[SourceFolder], Found | None]] = {
        "ytvis": from_ytvis.find,
        "coco": from_coco.find,
        "davis": partial(from_davis.find, category=category),
        "mots": from_mots.find,
        "cvat": from_cvat.find,
        "label_studio": from_label_studio.find,
        "labelme": from_labelme.find,
        "yolo": from_yolo.find,
        "sav": partial(from_sav.find, category=category),
        "sam3": partial(from_sam3.find, category=category),
    }
    if layout is not None and layout not in finders:
        raise ValueError(f"layout: expected one of {list(finders)}, got {layout!r}")
    tried = list(finders) if layout is None else [layout]
    for name in tried:
        found = finders[name](source)
        if found is not None:
            return found
    looked = "; ".join(
        f"{name}: {LOOKED_FOR[name].replace('{split}', source.split)}" for name in tried
    )
    raise DataError(
        source.root, expected=f"split {source.split!r} as {looked}", got="none of them"
    )


def prepare(
    root: str | Path,
    output: str | Path,
    split: str,
    *,
    layout: str | None = None,
    category: str = "object",
    copy: bool = False,
    link: Linker | None = None,
    progress: bool = False,
    tell: Callable[[Found], None] = lambda found: None,
) -> Outcome:
    """Writes `output/<split>/instances.json` and `output/<split>/JPEGImages/`.

    Done again, it finds that all is there. `root` is only read.

    Args:
      root: folder in one of the layouts.
      output: folder for all splits, outside of `root`.
      split: for example "train".
      layout: one of `LOOKED_FOR`, if it is not to be recognised.
      category: name of the category of layouts that have none.
      copy: copy images where they could be hard links.
      link: gives identities to labels that have none in the source.
      progress: show bars.
      tell: told of the layout before anything is read.

    Raises:
      DataError: no such layout, or a defect of the files.
      ValueError: `output` has something else in it, or lies inside of `root`; there is
        nothing to link.
    """
    source = SourceFolder(root, split)
    target = Path(output)
    if target.resolve().is_relative_to(source.root.resolve()):
        raise ValueError(f"output {output}: expected a folder outside of {root}")
    found = recognise(source, layout, category)
    tell(found)
    read = found.read()
    prepared = describe(read, progress, link) if isinstance(read, Foreign) else read
    if link is not None and not prepared.linked:
        raise ValueError(
            "link: expected labels without identities, got those that the"
            f" {found.layout} folder states"
        )
    written = write_split(target / split, prepared, copy=copy, progress=progress)
    return Outcome(found, prepared, written)
