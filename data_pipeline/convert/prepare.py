"""Converts a folder in any known layout to YouTube-VIS format."""

from collections.abc import Callable
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
    DetectedLayout,
    Foreign,
    IdentityLinker,
    PreparedSplit,
    describe,
)
from data_pipeline.convert.source_folder import SourceFolder
from data_pipeline.convert.write_split import write_split
from data_pipeline.errors import DataError


class KnownLayout(NamedTuple):
    """A supported folder layout.

    Attributes:
      looked_for: files that identify it, for messages.
      find: returns None if a folder has another layout; its string argument is the
        category name for files without categories.
    """

    looked_for: str
    find: Callable[[SourceFolder, str], DetectedLayout | None]


# In the order tried.
LAYOUTS = {
    "ytvis": KnownLayout(
        from_ytvis.LOOKED_FOR, lambda source, _: from_ytvis.find(source)
    ),
    "coco": KnownLayout(from_coco.LOOKED_FOR, lambda source, _: from_coco.find(source)),
    "davis": KnownLayout(
        from_davis.LOOKED_FOR,
        lambda source, category: from_davis.find(source, category=category),
    ),
    "mots": KnownLayout(from_mots.LOOKED_FOR, lambda source, _: from_mots.find(source)),
    "cvat": KnownLayout(from_cvat.LOOKED_FOR, lambda source, _: from_cvat.find(source)),
    "label_studio": KnownLayout(
        from_label_studio.LOOKED_FOR, lambda source, _: from_label_studio.find(source)
    ),
    "labelme": KnownLayout(
        from_labelme.LOOKED_FOR, lambda source, _: from_labelme.find(source)
    ),
    "yolo": KnownLayout(from_yolo.LOOKED_FOR, lambda source, _: from_yolo.find(source)),
    "sav": KnownLayout(
        from_sav.LOOKED_FOR,
        lambda source, category: from_sav.find(source, category=category),
    ),
    "sam3": KnownLayout(
        from_sam3.LOOKED_FOR,
        lambda source, category: from_sam3.find(source, category=category),
    ),
}


class Outcome(NamedTuple):
    """Result of preparing a folder."""

    found: DetectedLayout
    prepared: PreparedSplit
    written: bool  # False: it already existed


def recognise(
    source: SourceFolder, layout: str | None, category: str
) -> DetectedLayout:
    """Detects the layout of a folder.

    Args:
      source: the folder and the split.
      layout: the only one to try; None tries all.
      category: category name for layouts without categories.

    Raises:
      DataError: no layout fits; lists the files looked for. Or a defect of the files.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {list(LAYOUTS)}, got {layout!r}")
    tried = list(LAYOUTS) if layout is None else [layout]
    for name in tried:
        found = LAYOUTS[name].find(source, category)
        if found is not None:
            return found
    looked = "; ".join(
        f"{name}: {LAYOUTS[name].looked_for.replace('{split}', source.split)}"
        for name in tried
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
    link: IdentityLinker | None = None,
    progress: bool = False,
    tell: Callable[[DetectedLayout], None] = lambda found: None,
) -> Outcome:
    """Writes `output/<split>/instances.json` and `output/<split>/JPEGImages/`.

    A repeated call changes nothing. `root` is only read.

    Args:
      root: folder in one of the layouts.
      output: folder for all splits, outside `root`.
      split: for example "train".
      layout: one of `LAYOUTS`; None detects it.
      category: category name for layouts without categories.
      copy: copy images instead of hard-linking them.
      link: assigns identities to labels without them.
      progress: show bars.
      tell: receives the layout before anything is read.

    Raises:
      DataError: unknown layout, or a defect of the files.
      ValueError: `output` has other content or lies inside `root`; or there is nothing
        to link.
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
    for key, missing in (("videos", "video"), ("categories", "labelled object")):
        if not prepared.content[key]:
            raise DataError(source.root, expected=f"at least one {missing}", got="none")
    written = write_split(target / split, prepared, copy=copy, progress=progress)
    return Outcome(found, prepared, written)
