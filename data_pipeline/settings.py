"""The section `data` of a config: the videos, and the clips drawn from them."""

from typing import Annotated, Literal

from vis_jax.settings import Count, Natural, OneOf, Range, Share, section

NAMES = (
    "moving_shapes",
    "folder",
    "ytvis2019",
    "ytvis2021",
    "ytvis2022",
    "ovis",
    "coco",
)
# Smallest side in pixels at which moving shapes are distinguishable.
LEAST_SIDE = 32

# Categories of COCO and of YouTube-VIS are matched by name; these names differ. ""
# drops one: COCO's mouse is a computer mouse, YouTube-VIS's an animal.
COCO_NAMES = (
    ("car", "sedan"),
    ("motorcycle", "motorbike"),
    ("frisbee", "flying_disc"),
    ("car", "Vehical"),
    ("bus", "Vehical"),
    ("truck", "Vehical"),
    ("mouse", ""),
)

# The same for OVIS and YouTube-VIS 2019. The last three are a guess: RGNNVIS shares 23
# categories, 42 in total, without listing them.
OVIS_NAMES = (
    ("Motorcycle", "motorbike"),
    ("Poultry", "duck"),
    ("Vehicle", "sedan"),
    ("Bird", "eagle"),
)


@section
class Shapes:
    """`data.shapes`: moving shapes, drawn on demand, with `data.name` moving_shapes."""

    seed: Natural = 0  # random seed of the videos
    num_videos: Count = 200  # per split
    height: Annotated[int, Range(least=LEAST_SIDE)] = 96  # pixels
    width: Annotated[int, Range(least=LEAST_SIDE)] = 160  # pixels
    # Frames per video, or the (minimum, maximum) of a random number for each.
    length: Count | tuple[Count, Count] = (20, 30)
    # Number, size, speed, similarity and mutual occlusion of the shapes.
    difficulty: Literal["easy", "medium", "hard", "crowd"] = "easy"

    def __post_init__(self) -> None:
        if isinstance(self.length, tuple) and self.length[0] > self.length[1]:
            raise ValueError(f"length: expected (least, most), got {self.length}")


@section
class Stills:
    """`data.stills`: pseudo-clips of COCO images, alone or together with the videos."""

    root: str = ""  # folder with annotations/ and the images
    split: str = "train2017"  # split of COCO
    share: Share = 0.0  # fraction of clips made from images; 0 = none
    # Minimum and maximum size of a view, as a fraction of the largest that fits.
    zoom: Annotated[tuple[float, float], Range(least=0.1, most=1)] = (0.5, 1.0)
    angle: Annotated[float, Range(least=0, most=45)] = 15.0  # degrees, either way
    # Pairs (COCO category, matching video category); "" drops it.
    names: tuple[tuple[str, str], ...] = COCO_NAMES

    def __post_init__(self) -> None:
        if self.zoom[0] > self.zoom[1]:
            raise ValueError(f"zoom: expected (least, most), got {self.zoom}")


@section
class Joint:
    """`data.joint`: a second set of videos for joint training."""

    root: str = ""  # folder of the second set; "" = none
    split: str = "train"  # training split of the second set
    # Pairs (category of the second set, its name in the first); "" drops it. Categories
    # without a counterpart follow those of the first set.
    names: tuple[tuple[str, str], ...] = OVIS_NAMES
    evaluate: Literal["first", "second"] = "first"  # set for `test`


@section
class NearFrames:
    """`data.sampling`: a random frame, and others within `data.frame_range` of it."""

    kind: Literal["near"] = "near"  # sampling of frames: near, run or steps


@section
class ConsecutiveFrames:
    """`data.sampling`: consecutive frames."""

    kind: Literal["run"] = "run"  # sampling of frames: near, run or steps


@section
class OrderedFrames:
    """`data.sampling`: frames in order, with random gaps."""

    kind: Literal["steps"] = "steps"  # sampling of frames: near, run or steps
    max_step: Count = 3  # each frame follows the previous one by 1 to this many


@section
class Settings:
    """`data`: the training videos and the clips drawn from them."""

    name: Annotated[str, OneOf(NAMES)]  # data set
    root: str = ""  # folder of the data set; moving shapes have none
    split: str = "train"  # training split of the data set
    held_out: tuple[str | int, ...] = ()  # names or ids of videos kept for evaluation
    # If held_out is empty: fraction of a folder's videos to hold out, at least one. The
    # remaining videos keep all categories.
    held_out_share: Share = 0.0
    joint: Joint = Joint()
    stills: Stills = Stills()
    shapes: Shapes = Shapes()
    # numpy: reads without TensorFlow, for videos that need no resizing.
    loader: Literal["tf", "numpy"] = "tf"
    frames: Count = 2  # frames per clip
    # Sampling of a clip's frames from a video: near, run or steps.
    sampling: NearFrames | ConsecutiveFrames | OrderedFrames = NearFrames()
    frame_range: Natural = 20  # for near: maximum distance from the key frame
    short_side: tuple[Count, ...] = (360, 480)  # pixels; one is drawn per clip
    long_side: Count = 1333  # maximum pixels
    canvas: tuple[Count, Count] = (480, 864)  # height and width of every batch, pixels
    instances: Count = 20  # slots per clip; the largest instances are kept
    crop: tuple[Count, Count] | None = None  # minimum and maximum side, pixels
    crop_share: Share = 1.0  # fraction of clips that are cropped
    # Short sides, one drawn per clip, of the frames that `crop` is measured in; () =
    # source pixels.
    crop_at: tuple[Count, ...] = ()
    # Minimum and maximum scale of the source; a canvas-sized window is cut out of the
    # scaled frames, instead of crop, short_side and long_side. None = off.
    zoom: Annotated[tuple[float, float] | None, Range(least=0.1, most=4)] = None
    flip: Share = 0.5  # probability of a horizontal flip ..
    flip_per: Literal["clip", "frame"] = "clip"  # .. of a whole clip, or of each frame
    colour: Share = 0.0  # maximum relative change of brightness, contrast, saturation
    batch_size: Count = 16  # clips per update, over all devices
    # Folder of `data cache_features`: a frozen encoder's features of the frames, read
    # in place of computing them; "" = none.
    features: str = ""

    def __post_init__(self) -> None:
        if self.name == "moving_shapes" and self.root:
            raise ValueError(
                "root: expected none with name 'moving_shapes', got"
                f" {self.root!r} (name=folder reads it)"
            )
        if not self.short_side:
            raise ValueError("short_side: expected at least one length, got ()")
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise ValueError(f"crop: expected (smallest, largest), got {self.crop}")
        if self.zoom is not None:
            self._check_zoom(self.zoom)
        if self.joint.root:
            self._check_joint()
        if self.features:
            self._check_views()
        most = 2 * self.frame_range + 1
        if self.sampling.kind == "near" and self.frames > most:
            raise ValueError(
                f"frames: expected at most 2 * frame_range + 1 = {most} frames, got"
                f" {self.frames}"
            )

    def _check_zoom(self, zoom: tuple[float, float]) -> None:
        if zoom[0] > zoom[1]:
            raise ValueError(f"zoom: expected (least, most), got {zoom}")
        if self.crop is not None:
            raise ValueError(f"crop: expected None with zoom, got {self.crop}")

    def _check_views(self) -> None:
        """Stored features are of whole frames in a few sizes, mirrored or not."""
        wanted: dict[str, tuple[object, object]] = {
            "loader": (self.loader, "tf"),
            "crop_share": (self.crop_share if self.crop else 0.0, 0.0),
            "zoom": (self.zoom, None),
            "colour": (self.colour, 0.0),
            "stills.share": (self.stills.share, 0.0),
            "joint.root": (self.joint.root, ""),
        }
        for name, (value, expected) in wanted.items():
            if value != expected:
                raise ValueError(
                    f"{name}: expected {expected!r} with features of data.features,"
                    f" which are of whole, unchanged frames, got {value!r}"
                )
        if self.name == "coco":
            raise ValueError("features: expected none with name 'coco'")

    def _check_joint(self) -> None:
        if self.name in ("moving_shapes", "coco"):
            raise ValueError(
                f"joint.root: expected none with name {self.name!r}, got"
                f" {self.joint.root!r}"
            )
        if self.stills.share:
            raise ValueError(
                f"stills.share: expected 0 with joint.root, got {self.stills.share}"
            )
