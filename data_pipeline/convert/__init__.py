"""Converts other folder layouts to YouTube-VIS format."""

# In the order tried. Apart from `prepare.LAYOUTS`, which imports all readers, so that
# the help of a command imports no library.
LAYOUT_NAMES = (
    "ytvis",
    "coco",
    "davis",
    "mots",
    "cvat",
    "label_studio",
    "labelme",
    "yolo",
    "sav",
    "sam3",
)
