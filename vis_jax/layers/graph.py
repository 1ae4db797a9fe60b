"""Graph network over tracks and detections with node and edge updates.

Brissman et al., "Recurrent graph neural networks for video instance segmentation", IJCV
2022, section 3.2, table 8, and equation 9. Every detection is connected to every track
and to one empty track, for new objects. Letters: M tracks, N detections, D channels; E
and F channels of the edges.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vis_jax.layers.mlp import Mlp, linear
from vis_jax.layers.norm import LayerNorm
from vis_jax.typing import Array, Bool, Float32


class Graph(NamedTuple):
    """Nodes and edges of one frame's graph."""

    tracks: Float32[Array, "M D"]
    empty: Float32[Array, "D"]  # the empty track
    detections: Float32[Array, "N _"]
    edges: Float32[Array, "M N E"]
    empty_edges: Float32[Array, "N F"]


class Residual(nn.Module):
    """relu(x + F(x)), where F is a bottleneck of linear layers.

    Attributes:
      width: channels of the bottleneck.
      layers: number of layers in F: 3 in the paper, 2 in the released code's graph.
    """

    width: int
    layers: int

    @nn.compact
    def __call__(self, x: Float32[Array, "*lead C"]) -> Float32[Array, "*lead C"]:
        return nn.relu(x + Mlp(self.width, x.shape[-1], self.layers, name="layers")(x))


class Form(NamedTuple):
    """Shape of the graph blocks.

    Attributes:
      dim: D.
      narrow: bottleneck channels of residuals and gates.
      layers: per residual.
      gated: nodes aggregate edges with gates; otherwise by a sum, and all updates have
        a second layer (table 3, "MLP node updates").
      norm: end updates with a LayerNorm (RGNNVIS++).
    """

    dim: int
    narrow: int
    layers: int
    gated: bool
    norm: bool


class Interaction(nn.Module):
    """Updates the edges from their nodes, then the nodes from their edges, Eq. 1.

    Attributes:
      form: see the type.
      first: whether edges have a residual, as in the first block.
    """

    form: Form
    first: bool = False

    @nn.compact
    def __call__(
        self, graph: Graph, pairs: Bool[Array, "M N"], valid: Bool[Array, "N"]
    ) -> Graph:
        """Returns the updated graph, with D channels everywhere.

        Args:
          graph: before the update.
          pairs: existing edges between tracks and detections.
          valid: existing detections.
        """
        tracks, empty, detections = graph.tracks, graph.empty, graph.detections
        count, found = len(tracks), len(detections)
        update = self._update
        of_track = jnp.repeat(tracks[:, None], found, axis=1)
        of_detection = jnp.repeat(detections[None], count, axis=0)
        of_empty = jnp.repeat(empty[None], found, axis=0)
        edges = update("edge", [of_track, of_detection, graph.edges], self.first)
        empty_edges = update(
            "empty_edge", [of_empty, detections, graph.empty_edges], self.first
        )

        def message(name: str, edges: Array, there: Array) -> Array:
            return jnp.where(there[..., None], self._gate(name, edges) * edges, 0.0)

        to_tracks = message("track_gate", edges, pairs).sum(axis=1)
        to_empty = message("empty_gate", empty_edges, valid).sum(axis=0)
        to_detections = message("detection_gate", edges, pairs).sum(axis=0)
        to_detections += message("detection_empty_gate", empty_edges, valid)
        return Graph(
            update("track", [tracks, to_tracks]),
            update("empty", [empty, to_empty]),
            update("detection", [detections, to_detections]),
            edges,
            empty_edges,
        )

    def _update(
        self, name: str, parts: list[Float32[Array, "..."]], residual: bool = False
    ) -> Float32[Array, "*lead D"]:
        form = self.form
        x = jnp.concatenate(parts, axis=-1)
        x = nn.relu(linear(x, form.dim, name))
        if not form.gated:
            x = nn.relu(linear(x, form.dim, f"{name}_second"))
        if residual:
            x = Residual(form.narrow, form.layers, name=f"{name}_residual")(x)
        return LayerNorm(name=f"{name}_norm")(x) if form.norm else x

    def _gate(
        self, name: str, edges: Float32[Array, "*lead D"]
    ) -> Float32[Array, "*lead D"] | float:
        if not self.form.gated:
            return 1.0
        gate = Mlp(self.form.narrow, edges.shape[-1], 2, name=name)
        return jax.nn.sigmoid(gate(edges))


class Residuals(nn.Module):
    """Separate residuals for each kind of node and edge, Eq. 2."""

    form: Form

    @nn.compact
    def __call__(self, graph: Graph) -> Graph:
        parts = {
            name: Residual(self.form.narrow, self.form.layers, name=name)(part)
            for name, part in graph._asdict().items()
        }
        return Graph(**parts)


class GraphNetwork(nn.Module):
    """Alternating interactions and residuals.

    Attributes:
      form: see the type.
      blocks: number of interactions, each with residuals: 2 in the paper.
      residuals: whether residuals follow interactions.
    """

    form: Form
    blocks: int
    residuals: bool

    @nn.compact
    def __call__(
        self, graph: Graph, pairs: Bool[Array, "M N"], valid: Bool[Array, "N"]
    ) -> Graph:
        """Returns the graph after all blocks; see `Interaction`."""
        for index in range(self.blocks):
            block = Interaction(self.form, first=index == 0, name=f"interaction{index}")
            graph = block(graph, pairs, valid)
            if self.residuals:
                graph = Residuals(self.form, name=f"residuals{index}")(graph)
        return graph
