"""Settings of MaskProp."""

from typing import Annotated, Literal

from vis_jax.association.clip_tracks import ScoreMode
from vis_jax.association.propagation import Settings as PropagationSettings
from vis_jax.association.track_head import OptionalSettings as TrackHeadSettings
from vis_jax.detectors import cascade_settings
from vis_jax.detectors.refine import Settings as RefineSettings
from vis_jax.losses.soft_iou import Normalisation
from vis_jax.settings import Count, Range, Share, Weight, section
from vis_jax.systems import cascade_loss, system
from vis_jax.systems.system import Dtype
from vis_jax.trackers.iou import Settings as IouSettings
from vis_jax.trackers.mask_track import Settings as MaskTrackSettings

_Open = Annotated[float, Range(least=0, below=1)]


@section
class ModelSettings(cascade_settings.Settings):
    """`model`."""

    propagation: PropagationSettings = PropagationSettings()
    refinement: RefineSettings = RefineSettings()
    # For `test.propagation` track_head.
    track_head: TrackHeadSettings = TrackHeadSettings()
    # What enriches the features of a frame by those of other frames before objects are
    # found, at strides 16 and 32. stsn: see `layers.temporal_sampling`; in training the
    # other frame of a pair, at test time test.support frames on either side.
    temporal: Literal["none", "stsn"] = "none"


@section
class LossSettings(cascade_loss.LossSettings):
    """`loss`: the weight of every term, and which masks are carried.

    The paper gives no weight of `propagation` and `refinement`.
    """

    propagation: Weight = 1.0  # which pixels an object has in both frames, Eq. 2
    refinement: Weight = 1.0  # which pixels of its patch it has
    # Of the objects whose true mask is carried, not the one that the mask heads find.
    true_masks: Share = 0.5
    mask_gradient: bool = False  # train the mask heads by the masks that are carried
    own_frame: bool = True  # carry masks to the key frame, too, as Eq. 2 has it
    # Cells added above and below the fraction of Eq. 3, without which an object that
    # has left teaches nothing; 0 = the paper read literally.
    epsilon: Weight = 1.0
    # Over objects: "sum" as in Eq. 2, or "mean", which does not grow with their number.
    normalisation: Normalisation = "mean"
    refined: Count = 4  # most objects of a key frame that train the refinement


@section
class FlowSettings:
    """`test.flow`: optical flow between frames at the resolution of 'p3'.

    It is computed without weights; the paper has FlowNet2 in its place.
    """

    # At most; each level has half the cells of the one before along each axis, and none
    # less than 8. Objects of less than 5 cells on the coarsest are hardly followed; the
    # work of the first search grows with the square of its cells.
    levels: Count = 1
    warps: Count = 6  # how often the flow is improved at each level
    # Flow to frames further away is put together from that between neighbours; else it
    # is found at once. The paper does not say.
    chained: bool = False


@section
class TrackerSettings:
    """`test.trackers`: for objects that are not linked by their masks in clips."""

    iou: IouSettings = IouSettings()
    mask_track: MaskTrackSettings = MaskTrackSettings()


@section
class TestSettings(system.TestSettings):
    """`test`; but for `tracks`, the result does not depend on how clips are cut."""

    clip_length: Count = 16  # frames of a clip of test.mode "clip"
    score: Share = 0.1  # least score of a detection
    nms: Share = 0.5  # IoU above which the better of two boxes of a class suppresses
    objects: Count = 20  # most detections in a frame
    # Most tracks of a video, or, with test.mode "clip", of those that still go on and
    # those of one clip.
    tracks: Count = 360
    refine: bool = True  # masks shown are those of the refinement network
    # What links the objects of frames. deform: masks carried to other frames by the
    # network; flow: by test.flow; iou: test.trackers.iou, by the overlap of boxes;
    # track_head: test.trackers.mask_track.
    propagation: Literal["deform", "flow", "iou", "track_head"] = "deform"
    # Frames on either side of each frame that its masks are carried to, T in the paper.
    radius: Count = 6
    # Frames on either side that model.temporal reads; beyond the ends of a video its
    # first and last frame stand for them.
    support: Count = 6
    # IoU of masks from which detections of a frame are one object, whose labels all
    # count; 0 = never. Else the masks of an object with two labels share its pixels.
    duplicates: Share = 0.7
    binarize: bool = False  # masks are cut at 0.5 before they are carried
    # Masks that are compared in the frame they were found in: those of the network,
    # which are disjoint, or those of the detector.
    centre: Literal["propagated", "frame_mask"] = "propagated"
    threshold: _Open = 0.3  # of the score of Eq. 5; the paper does not say
    # Each object of a frame has a track of its own; see `clip_tracks.Rule`.
    unique: bool = True
    scoring: ScoreMode = "label_sum_over_n"  # of a track for each class
    least: Share = 0.01  # scores of classes of a track up to this are 0
    flow: FlowSettings = FlowSettings()
    trackers: TrackerSettings = TrackerSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () for tracks, got {self.tta}")


@section
class Settings:
    """All that this system reads of a config."""

    compute_dtype: Dtype = "float32"  # of the network; the loss is always in float32
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    test: TestSettings = TestSettings()

    def __post_init__(self) -> None:
        if self.test.propagation == "track_head" and not self.model.track_head.width:
            raise ValueError(
                "test.propagation: expected a model with a track head for 'track_head',"
                " got model.track_head.width 0"
            )
        sampled, linked = self.model.temporal != "none", self.test.propagation
        if sampled and linked not in ("deform", "flow"):
            raise ValueError(
                "test.propagation: expected 'deform' or 'flow' with model.temporal"
                f" {self.model.temporal!r}, as trackers see frames one by one, got"
                f" {linked!r}"
            )
