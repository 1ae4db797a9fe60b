"""The recurrent graph network of RGNNVIS: from detections of frames to tracks.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, sections 3.1 to 3.5. One frame of one video is processed at a time, online;
training runs the same step over the frames of a clip. Letters: M track slots, N
detections per frame, C classes including the background, which comes first, D embedding
channels, A appearance channels, L frames.
"""

from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.association.track_decisions import (
    ACTIVE,
    FREE,
    NEVER,
    Decision,
    Thresholds,
    add_cues,
    decide,
    decide_by_scores,
    description_scores,
)
from vis_jax.association.track_models import (
    GaussianRule,
    Observation,
    TrackAppearance,
    TrackModel,
    as_edges,
    empty_appearance,
)
from vis_jax.layers.graph import Form, Graph, GraphNetwork
from vis_jax.layers.mlp import Mlp, torch_uniform
from vis_jax.layers.recurrence import Kind as RecurrenceKind
from vis_jax.layers.recurrence import Recurrence
from vis_jax.ops.boxes import box_iou
from vis_jax.ops.gaussian import VarianceRule
from vis_jax.settings import Count, section
from vis_jax.typing import Array, Bool, Float32, Int32

_LOGIT_BIAS = -2.1  # initial bias of both decisions, as in the released code
_ABSENT = -10.0  # logit of a match with no track


@section
class Settings:
    """`model.graph`: the association; most fields are rows of table 3."""

    tracks: Count = 24  # slots per video; never freed
    dim: Count = 128  # channels of nodes and edges
    narrow: Count = 32  # bottleneck channels of residuals and gates
    blocks: Count = 2  # number of interactions
    residuals: bool = True  # after every interaction
    residual_layers: Literal[2, 3] = 3  # layers per residual; 2 in the released code
    gated: bool = True  # nodes gate their edges; False: sums, and one more layer each
    layer_norm: bool = False  # at the end of every update, as in RGNNVIS++
    # graph: as in the paper; pairs: independent pairs, without a graph; heuristic: dot
    # products of appearance and, at test time, the cues of MaskTrack R-CNN, without
    # recurrence (set it to none).
    decide: Literal["graph", "pairs", "heuristic"] = "graph"
    recurrence: RecurrenceKind = "lstm"  # from frame to frame
    feedback: bool = False  # gates see the last output, as in the released code
    # Appearance input of edges. gaussian: likelihood under a Gaussian that changes by
    # rates; constant_variance: by the rate of the mean alone; lstm: by two LSTMs;
    # vertex: none, detections carry their appearance; none.
    looks: Literal["gaussian", "constant_variance", "lstm", "vertex", "none"] = (
        "gaussian"
    )
    variance: VarianceRule = "released"  # weight of the squared difference in Eq. 4b
    fixed_variance: bool = False  # fixed initial variance, as in the released code
    looks_from_zero: bool = False  # first update from a zero mean: the released code
    keep_boxes: bool = True  # for tracks out of sight; False: as in the released code

    def __post_init__(self) -> None:
        if self.feedback and self.recurrence != "lstm":
            raise ValueError(
                "feedback: expected False, as no gate of recurrence"
                f" {self.recurrence!r} reads it, got True"
            )
        if self.decide == "heuristic":
            for name, only, why in (
                ("recurrence", "none", "tracks have no recurrent state"),
                ("looks", "gaussian", "tracks keep their last appearance"),
            ):
                if getattr(self, name) != only:
                    raise ValueError(
                        f"{name}: expected {only!r} with decide 'heuristic', where"
                        f" {why}, got {getattr(self, name)!r}"
                    )


class GraphFrame(NamedTuple):
    """Detections of a frame, best first, with their appearance."""

    valid: Bool[Array, "*L N"]
    logits: Float32[Array, "*L N C"]
    scores: Float32[Array, "*L N"]
    boxes: Float32[Array, "*L N 4"]  # in canvas pixels
    appearance: Float32[Array, "*L N A"]
    background: Float32[Array, "*L A"]  # appearance of the whole frame
    real: Bool[Array, "*L"]  # False for padding, which changes nothing


class Memory(NamedTuple):
    """State of a video after a frame; of constant size."""

    begun: Bool[Array, ""]
    status: Int32[Array, "M"]  # FREE, ACTIVE or INACTIVE
    hidden: Float32[Array, "M D"]
    cell: Float32[Array, "M D"]
    boxes: Float32[Array, "M 4"]
    empty_hidden: Float32[Array, "D"]  # hidden state of the empty track
    empty_cell: Float32[Array, "D"]
    appearance: TrackAppearance  # the empty track is the last row
    lost: Int32[Array, ""]  # new objects without a free slot


class FrameDecisions(NamedTuple):
    """Decisions on a frame; logits are NEVER where there is nothing to decide."""

    match_logits: Float32[Array, "*L M N"]
    start_logits: Float32[Array, "*L N"]  # logit of each detection showing a new object
    pairs: Bool[Array, "*L M N"]  # existing tracks x detections
    status: Int32[Array, "*L M"]  # after the frame
    born: Bool[Array, "*L M"]  # tracks that start in this frame
    chosen: Int32[Array, "*L M"]  # detection of each active track
    hidden: Float32[Array, "*L M D"]
    class_logits: Float32[Array, "*L M C"]


def empty_memory(settings: Settings, width: int) -> Memory:
    """Returns the state before the first frame; `width` is A."""
    rows, dim = settings.tracks, settings.dim

    def zeros(*shape: int) -> Array:
        return jnp.zeros(shape, jnp.float32)

    return Memory(
        begun=jnp.bool_(False),
        status=jnp.zeros((rows,), jnp.int32),
        hidden=zeros(rows, dim),
        cell=zeros(rows, dim),
        boxes=zeros(rows, 4),
        empty_hidden=zeros(dim),
        empty_cell=zeros(dim),
        appearance=empty_appearance(rows + 1, width, settings.looks),
        lost=jnp.int32(0),
    )


class GraphOutput(NamedTuple):
    """Output of the graph network for a frame, before decisions."""

    match_logits: Float32[Array, "M N"]
    start_logits: Float32[Array, "N"]
    tracks: Float32[Array, "M D"]  # input to tracks that continue
    newcomers: Float32[Array, "N D"]  # input to tracks that start here
    empty: Float32[Array, "D"]


class ByGraph(nn.Module):
    """The graph network with two logistic edge classifiers, sections 3.2 and 3.3."""

    settings: Settings

    def setup(self) -> None:
        settings = self.settings
        form = Form(
            dim=settings.dim,
            narrow=settings.narrow,
            layers=settings.residual_layers,
            gated=settings.gated,
            norm=settings.layer_norm,
        )
        self.network = GraphNetwork(form, settings.blocks, settings.residuals)
        if settings.decide == "graph":
            self.match, self.start = (
                nn.Dense(
                    1,
                    kernel_init=nn.initializers.xavier_uniform(),
                    bias_init=nn.initializers.constant(_LOGIT_BIAS),
                )
                for _ in range(2)
            )

    def __call__(
        self, graph: Graph, pairs: Bool[Array, "M N"], valid: Bool[Array, "N"]
    ) -> GraphOutput:
        """Returns the output of the network; see `GraphNetwork`.

        With heuristic decisions it gives no logits.
        """
        graph = self.network(graph, pairs, valid)
        match = jnp.full(pairs.shape, NEVER, jnp.float32)
        start = match[0]
        if self.settings.decide == "graph":
            match = jnp.where(pairs, self.match(graph.edges)[..., 0], NEVER)
            start = jnp.where(valid, self.start(graph.empty_edges)[..., 0], NEVER)
        return GraphOutput(match, start, graph.tracks, graph.detections, graph.empty)


class ByPairs(nn.Module):
    """Independent pairs: table 3, "no GNN", as in the released code."""

    dim: int

    @nn.compact
    def __call__(
        self, graph: Graph, pairs: Bool[Array, "M N"], valid: Bool[Array, "N"]
    ) -> GraphOutput:
        """Scores a detection as new to the extent that it matches no track."""
        match = Mlp(self.dim, 1, 3, name="match")(graph.edges)[..., 0]
        likely = jnp.where(pairs, match, _ABSENT)
        start = -jax.lax.stop_gradient(likely).max(axis=0)
        match = jnp.where(pairs, match, NEVER)
        best = graph.detections[match.argmax(axis=1)]
        best = jnp.where(pairs.any(axis=1)[:, None], best, 0.0)
        join = Mlp(self.dim, self.dim, 2, name="track")
        unknown = jnp.zeros((len(graph.detections), self.dim), jnp.float32)
        return GraphOutput(
            match,
            jnp.where(valid, start, NEVER),
            nn.relu(join(jnp.concatenate([graph.tracks, best], axis=-1))),
            nn.relu(join(jnp.concatenate([unknown, graph.detections], axis=-1))),
            graph.empty,
        )


class TrackGraph(nn.Module):
    """The association for one frame.

    Attributes:
      settings: see the type.
      width: A.
      classes: C.
    """

    settings: Settings
    width: int
    classes: int

    def setup(self) -> None:
        settings, init = self.settings, torch_uniform(self.settings.dim)
        by_pairs = settings.decide == "pairs"
        self.say = ByPairs(settings.dim) if by_pairs else ByGraph(settings)
        self.recurrence, self.empty_recurrence = (
            Recurrence(settings.recurrence, settings.feedback) for _ in range(2)
        )
        self.classify = nn.Dense(self.classes, kernel_init=init, bias_init=init)
        kind = settings.looks
        if kind not in ("vertex", "none"):
            rule = GaussianRule(
                kind="latest" if settings.decide == "heuristic" else cast(Any, kind),
                variance=settings.variance,
                fixed_start=settings.fixed_variance,
                from_zero=settings.looks_from_zero,
            )
            self.model = TrackModel(self.width, settings.dim, rule)

    def __call__(
        self,
        memory: Memory,
        frame: GraphFrame,
        *,
        canvas: tuple[int, int],
        thresholds: Thresholds,
        cues: bool,
    ) -> tuple[Memory, FrameDecisions]:
        """Returns the memory after a frame, and the decisions.

        Args:
          memory: before the frame.
          frame: see the type.
          canvas: height and width of the frame in pixels.
          thresholds: for the decisions.
          cues: heuristic decisions also use cues beyond appearance, as at test time.
        """
        if self._models_appearance:
            begun = self.model.begin(memory.appearance, frame.background, memory.begun)
            memory = memory._replace(appearance=begun)
        pairs = (memory.status != FREE)[:, None] & frame.valid[None]
        said = self.say(self._graph(memory, frame, canvas), pairs, frame.valid)
        if self.settings.decide == "heuristic":
            match, start = self._scores(memory, frame, cues)
            said = said._replace(match_logits=match, start_logits=start)
        decision = self._decide(memory, said, thresholds)
        after = self._remember(memory, frame, said, decision)
        linked = FrameDecisions(
            said.match_logits,
            said.start_logits,
            pairs,
            after.status,
            decision.born,
            decision.chosen,
            after.hidden,
            self.classify(after.hidden),
        )
        real = frame.real
        return jax.tree.map(lambda a, b: jnp.where(real, b, a), memory, after), linked

    @property
    def _models_appearance(self) -> bool:
        return self.settings.looks not in ("vertex", "none")

    def _graph(
        self, memory: Memory, frame: GraphFrame, canvas: tuple[int, int]
    ) -> Graph:
        """Builds the nodes and edges before the network, sections 3.1 and 3.4."""
        height, width = canvas
        sides = jnp.array([width, height, width, height], jnp.float32)[None]
        parts = [frame.logits, 2.0 * frame.boxes / sides - 1.0]
        if self.settings.looks == "vertex":
            parts.append(frame.appearance)
        nodes = jnp.where(frame.valid[:, None], jnp.concatenate(parts, axis=-1), 0.0)
        edges = [2.0 * box_iou(memory.boxes, frame.boxes) - 1.0]
        empty_edges = []
        if self._models_appearance:
            likely = as_edges(memory.appearance, frame.appearance)
            edges.insert(0, likely[:-1])
            empty_edges.append(likely[-1])
        none = jnp.zeros((len(frame.valid), 0), jnp.float32)
        return Graph(
            memory.hidden,
            memory.empty_hidden,
            nodes,
            jnp.stack(edges, axis=-1),
            jnp.stack(empty_edges, axis=-1) if empty_edges else none,
        )

    def _scores(
        self, memory: Memory, frame: GraphFrame, cues: bool
    ) -> tuple[Float32[Array, "M N"], Float32[Array, "N"]]:
        """Returns the scores of heuristic decisions."""
        exists = memory.status != FREE
        match, start = description_scores(
            memory.appearance.mean[:-1], exists, frame.appearance, frame.valid
        )
        if cues:
            own = self.classify(memory.hidden)[:, 1:].argmax(axis=1)
            found = frame.logits[:, 1:].argmax(axis=1)
            match = add_cues(
                match,
                confidence=frame.scores,
                overlap=box_iou(memory.boxes, frame.boxes),
                same_class=own[:, None] == found[None],
            )
        return match, start

    def _decide(
        self, memory: Memory, said: GraphOutput, thresholds: Thresholds
    ) -> Decision:
        """Makes the decisions, without gradient."""
        match, start = map(
            jax.lax.stop_gradient, (said.match_logits, said.start_logits)
        )
        if self.settings.decide == "heuristic":
            return decide_by_scores(memory.status, match, start)
        return decide(memory.status, match, start, thresholds)

    def _remember(
        self, memory: Memory, frame: GraphFrame, said: GraphOutput, decision: Decision
    ) -> Memory:
        """Updates the tracks after the decisions, section 3.5."""
        active, born = decision.status == ACTIVE, decision.born[:, None]
        exists = (decision.status != FREE)[:, None]
        entering = jnp.where(born, said.newcomers[decision.chosen], said.tracks)
        hidden, cell = self.recurrence(
            jnp.where(exists, entering, 0.0), memory.hidden, memory.cell
        )
        empty_hidden, empty_cell = self.empty_recurrence(
            said.empty, memory.empty_hidden, memory.empty_cell
        )
        hidden, cell = jnp.where(exists, hidden, 0.0), jnp.where(exists, cell, 0.0)
        away = memory.boxes if self.settings.keep_boxes else 0.0
        appearance = memory.appearance
        if self._models_appearance:
            own = jnp.ones((1,), bool)
            x = frame.appearance[decision.chosen]
            seen = Observation(
                jnp.concatenate([x, frame.background[None]]),
                jnp.concatenate([hidden, empty_hidden[None]]),
                jnp.concatenate([active, own]),
                jnp.concatenate([decision.born, ~own]),
            )
            appearance = self.model(appearance, seen)
        return Memory(
            begun=jnp.bool_(True),
            status=decision.status,
            hidden=hidden,
            cell=cell,
            boxes=jnp.where(active[:, None], frame.boxes[decision.chosen], away),
            empty_hidden=empty_hidden,
            empty_cell=empty_cell,
            appearance=appearance,
            lost=memory.lost + decision.lost,
        )
