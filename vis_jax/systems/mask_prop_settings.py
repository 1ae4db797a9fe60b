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
    # Only for `test.propagation` track_head.
    track_head: TrackHeadSettings = TrackHeadSettings()
    # Enriches the features of a frame by those of other frames before detection, at
    # strides 16 and 32. stsn: see `layers.temporal_sampling`; uses the other frame of a
    # pair in training, test.support frames on either side at test time.
    temporal: Literal["none", "stsn"] = "none"


@section
class LossSettings(cascade_loss.LossSettings):
    """`loss`: the weight of each term, and which masks are propagated.

    The paper gives no weight of `propagation` and `refinement`.
    """

    propagation: Weight = 1.0  # masks in both frames, Eq. 2
    refinement: Weight = 1.0  # refined masks in patches
    # Share of objects whose ground-truth mask is propagated instead of the mask heads'.
    true_masks: Share = 0.5
    mask_gradient: bool = False  # train the mask heads through propagated masks
    own_frame: bool = True  # also propagate masks to the key frame, as in Eq. 2
    # Cells added to numerator and denominator of Eq. 3, without which an object that
    # has left gives no gradient; 0 = the paper read literally.
    epsilon: Weight = 1.0
    # Over objects: "sum" as in Eq. 2, or "mean", which does not grow with their number.
    normalisation: Normalisation = "mean"
    refined: Count = 4  # most objects per key frame that train the refinement


@section
class FlowSettings:
    """`test.flow`: optical flow between frames at the resolution of 'p3'.

    It is computed without weights; the paper has FlowNet2 in its place.
    """

    # At most; each level has half the resolution of the previous one, and at least 8
    # cells per side. Objects smaller than 5 cells on the coarsest level are hardly
    # tracked; the cost of the first search grows with the square of its cells.
    levels: Count = 1
    warps: Count = 6  # refinement iterations per level
    # Compose flow to distant frames from that between neighbours; otherwise estimate it
    # directly. The paper does not say.
    chained: bool = False


@section
class TrackerSettings:
    """`test.trackers`: for objects that are not linked by propagated masks."""

    iou: IouSettings = IouSettings()
    mask_track: MaskTrackSettings = MaskTrackSettings()


@section
class TestSettings(system.TestSettings):
    """`test`; but for `tracks`, the result does not depend on how clips are cut."""

    clip_length: Count = 16  # frames of a clip with test.mode "clip"
    score: Share = 0.1  # minimum score of a detection
    nms: Share = 0.5  # IoU above which the better of two boxes of a class suppresses
    objects: Count = 20  # most detections per frame
    # Most tracks per video or, with test.mode "clip", of ongoing tracks plus those of
    # one clip.
    tracks: Count = 360
    refine: bool = True  # output masks of the refinement network
    # Linking of objects across frames. deform: masks propagated by the network; flow:
    # by test.flow; iou: test.trackers.iou, by box overlap; track_head:
    # test.trackers.mask_track.
    propagation: Literal["deform", "flow", "iou", "track_head"] = "deform"
    # Frames on either side that masks are propagated to, T in the paper.
    radius: Count = 6
    # Frames on either side that model.temporal uses; clamped to the first and last
    # frame of the video.
    support: Count = 6
    # Mask IoU from which detections of a frame are merged into one object with all
    # their labels; 0 = never. Otherwise the masks of an object with two labels split
    # its pixels.
    duplicates: Share = 0.7
    binarize: bool = False  # threshold masks at 0.5 before propagating them
    # Masks compared in their own frame: the network's, which are disjoint, or the
    # detector's.
    centre: Literal["propagated", "frame_mask"] = "propagated"
    threshold: _Open = 0.3  # for the score of Eq. 5; not in the paper
    # The objects of a frame get different tracks; see `clip_tracks.ContinuationRule`.
    unique: bool = True
    scoring: ScoreMode = "label_sum_over_n"  # score of a track for each class
    least: Share = 0.01  # class scores of a track up to this become 0
    flow: FlowSettings = FlowSettings()
    trackers: TrackerSettings = TrackerSettings()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () for tracks, got {self.tta}")


@section
class Settings:
    """All settings of this system."""

    compute_dtype: Dtype = "float32"  # for the network; the loss is always in float32
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
