"""Benchmarks of one layer of graph attention on the channel graphs of real networks.

The layer has four heads of sixteen features; its forward pass and its gradient are timed together.
Memory is what the compiled program needs for its arguments and temporary buffers
(`memory_analysis`), without the rest of the process.
"""

from collections.abc import Callable, Iterator
import functools
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measuring import Measurement, alternating
from experiments.benchmarks.peers import require
import gatprune_jax as gp
from gatprune_jax import models
from gatprune_jax.agent import graph_attention, jraph_attention, observe, to_graphs_tuple
from gatprune_jax.agent.gat import Attention
from gatprune_jax.channels import make_budgets
from gatprune_jax.kernels.attention import EDGE_FEATURES, Bipartite, Layout, lay_out
from gatprune_jax.kernels.attention.tiles import Tiles

_HEADS, _FEATURES, _NODE_FEATURES = 4, 16, 64
_RESNET50_WIDTHS = (64, 128, 256, 512)
_DIVISORS = (8, 4, 2, 1)  # divide the widths, which gives four sizes of one graph


class AttentionCase(NamedTuple):
  """A network's channel graph, with random weights and input for an attention layer on it.

  Attributes:
    num_channels: number of channel nodes.
    num_layers: number of layer nodes.
    params: random parameters of the attention layer.
    nodes: random features of the nodes.
    sets: the edges, from `observe`.
    edges: the same edges, as `lay_out` arranges them for the layer.
  """

  num_channels: int
  num_layers: int
  params: Attention
  nodes: jax.Array  # [n, F]
  sets: tuple[Bipartite, ...]
  edges: Layout


class CompiledLayer(NamedTuple):
  """A compiled layer with its gradient, and facts about the compiled program."""

  run: Callable[[], Any]
  seconds_to_compile: float
  instructions: int  # in the optimised program
  gib: float  # GiB of arguments and temporary buffers


def channel_graph(
  name: str, side: int, num_classes: int, edge_norms: bool, **options: Any
) -> AttentionCase:
  """Makes the `ChannelGraph` of a network of `models` on images `[side, side, 3]`.

  Args:
    name: a key of `models.MODELS`.
    side: pixels of the images.
    num_classes: outputs of the last dense layer.
    edge_norms: whether edges have the norms of the kernels as a feature.
    **options: further arguments of the network's constructor.
  """
  module = models.model(name, num_classes, **options)
  fn, x = models.eval_function(module), jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), x)
  rng = np.random.default_rng(0)
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  variables = jax.tree.map(lambda s: normal(*s.shape), shapes)
  graph = gp.trace(fn, variables, x)
  budgets = make_budgets(graph, {"macs": 0.5})
  index = {"index": np.arange(graph.num_channels)}
  sets = observe(graph, variables, index, budgets, edge_norms).edges
  params = Attention(
    *(0.1 * normal(*shape) for shape in (
      (_NODE_FEATURES, _HEADS, _FEATURES), (_HEADS, _FEATURES), (_HEADS, _FEATURES),
      (len(EDGE_FEATURES), _HEADS),
    ))
  )  # fmt: skip
  num_nodes = graph.num_channels + len(graph.layers)
  nodes = jnp.asarray(normal(num_nodes, _NODE_FEATURES))
  edges = lay_out(sets, num_nodes)
  return AttentionCase(graph.num_channels, len(graph.layers), params, nodes, sets, edges)


def compiled(layer: Callable, graph: AttentionCase, edges: Any) -> CompiledLayer:
  """Compiles a layer with the gradient of the sum of its squared outputs; does not run it.

  Args:
    layer: `layer(params, nodes, edges)` -> an array.
    graph: holds the parameters and nodes that the layer is called with.
    edges: the graph's edges, in the form that the layer takes.
  """
  loss = lambda params, nodes, edges: (layer(params, nodes, edges) ** 2).sum()
  start = time.perf_counter()
  program = (
    jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    .lower(graph.params, graph.nodes, edges)
    .compile()
  )
  seconds = time.perf_counter() - start
  memory = program.memory_analysis()
  arguments = jax.device_put((graph.params, graph.nodes, edges))
  return CompiledLayer(
    lambda: program(*arguments),
    seconds,
    program.as_text().count(" = "),
    (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
  )


def attention_against_jraph() -> Iterator[Measurement]:
  """Compares the layer with `jraph.GAT`, at sizes where that needs at most half of the memory."""
  half = _memory() / 2**31
  for edge_norms in (True, False):
    for divisor in _DIVISORS:
      graph = _resnet50(divisor, edge_norms)
      edges = to_graphs_tuple(np.asarray(graph.nodes), graph.sets, len(graph.nodes))
      reference = compiled(jraph_attention, graph, edges)
      if reference.gib > half:
        break
      note = f"{len(edges.senders)} edges, {{:.2f}} GiB against {reference.gib:.2f}"
      told = note if edge_norms else f"no norms of edges, {note}"
      yield _against(graph, reference.run, "jraph.GAT", told)


def attention_against_torch() -> list[Measurement]:
  """Compares the layer with `torch_geometric.nn.GATConv`, on a quarter of ResNet-50's widths.

  Raises:
    Skipped: if torch_geometric is not installed.
  """
  require("torch_geometric")
  from experiments.benchmarks.torch_geometric_layer import forward_and_gradient

  graph = _resnet50(4, edge_norms=True)
  edges = to_graphs_tuple(np.asarray(graph.nodes), graph.sets, len(graph.nodes))
  run = forward_and_gradient(
    edges.nodes, edges.senders, edges.receivers, edges.edges, _HEADS, _FEATURES
  )
  note = f"{len(edges.senders)} edges, {{:.2f}} GiB"
  return [_against(graph, run, "torch_geometric GATConv", note)]


def attention_size() -> list[Measurement]:
  """Measures how time grows with the number of channels, memory, and the cost of edge norms."""
  seconds, programs, channels = {}, {}, []
  for divisor in _DIVISORS:
    graphs = [_resnet50(divisor, edge_norms) for edge_norms in (True, False)]
    both = [compiled(graph_attention, graph, graph.edges) for graph in graphs]
    channels.append(graphs[0].num_channels)
    for name, program, time_of in zip(
      ("norms", "no norms"), both, alternating(*(program.run for program in both)), strict=True
    ):
      seconds.setdefault(name, []).append(time_of)
      programs[name] = program
  exponent = {name: np.polyfit(np.log(channels), np.log(s), 1)[0] for name, s in seconds.items()}
  rows = []
  for name, values in seconds.items():
    rows.append(
      Measurement(
        f"attention and gradient, resnet50, edges with {name}",
        values[-1],
        f"{channels[0]} channels instead of {channels[-1]}",
        values[0],
        values[0] / values[-1],
        f"channels^{exponent[name]:.2f} over 4 sizes, {programs[name].gib:.2f} GiB",
      )
    )
  with_norms, without = seconds["norms"][-1], seconds["no norms"][-1]
  name = "attention and gradient, resnet50, no norms of edges"
  note = "largest size"
  return [
    *rows,
    Measurement(name, without, "edges with norms", with_norms, with_norms / without, note),
  ]


def attention_compilation() -> list[Measurement]:
  """Measures the seconds to compile a layer and its gradient, relative to those of ResNet-20."""
  programs = {}
  for name, side, num_classes in (
    ("resnet20", 32, 10),
    ("resnet56", 32, 10),
    ("resnet110", 32, 10),
    ("densenet40", 32, 10),
    ("mobilenet_v2", 224, 1000),
    ("resnet50", 224, 1000),
  ):
    graph = channel_graph(name, side, num_classes, edge_norms=True)
    programs[name] = graph, compiled(graph_attention, graph, graph.edges)
  _, least = programs.pop("resnet20")
  return [
    Measurement(
      f"compile attention and gradient, {name}",
      program.seconds_to_compile,
      "resnet20",
      least.seconds_to_compile,
      least.seconds_to_compile / program.seconds_to_compile,
      f"{graph.num_layers} layers, {_layout(graph.edges)}, {program.instructions} instructions "
      f"({least.instructions} for resnet20)",
    )
    for name, (graph, program) in programs.items()
  ]


def _memory() -> int:
  """Returns the bytes of memory of the accelerator, or else of the machine."""
  if stats := jax.devices()[0].memory_stats():
    return stats["bytes_limit"]
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _resnet50(divisor: int, edge_norms: bool) -> AttentionCase:
  widths = tuple(width // divisor for width in _RESNET50_WIDTHS)
  return channel_graph("resnet50", 224, 1000, edge_norms, widths=widths)


def _layout(edges: Layout) -> str:
  if isinstance(edges, Tiles):
    return f"{len(edges.norms)} tiles with norms"
  sets = sum(block.senders.shape[0] * block.senders.shape[1] for block in edges)
  return f"{sets} sets of edges, {len(edges)} shapes"


def _against(
  graph: AttentionCase, reference: Callable[[], Any], name: str, note: str
) -> Measurement:
  ours = compiled(graph_attention, graph, graph.edges)
  # The last of three calls in a row is used. After a call of the reference, one of the first two
  # also waits until the system has the reference's memory back. In a search, attention layers run
  # without such a wait.
  reference_seconds, _, _, seconds = alternating(reference, *3 * [ours.run], repeats=5)
  return Measurement(
    f"attention and gradient, resnet50, {graph.num_channels} channels",
    seconds,
    name,
    reference_seconds,
    reference_seconds / seconds,
    note.format(ours.gib),
  )
