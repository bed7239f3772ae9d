"""Attention on blocks against jraph.GAT, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

import gatprune_jax as gp
from gatprune_jax.agent import Observation, observe
from gatprune_jax.agent.features import EDGE_FEATURES, Block
from gatprune_jax.agent.gat import (
  Attention,
  GraphAttention,
  attend_blocks,
  attend_edges,
  to_graphs_tuple,
)
from gatprune_jax.channels import keep_floors, make_budgets


def random_attention(rng, features=5, heads=3, width=4):
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  return Attention(
    normal(features, heads, width), normal(heads, width), normal(heads, width),
    normal(len(EDGE_FEATURES), heads),
  )  # fmt: skip


def random_blocks(rng, num_nodes):
  """Blocks that overlap in senders and receivers; ids above the nodes' are edges of no one."""
  blocks = []
  for _ in range(4):
    sizes = rng.integers(1, 6, 3)
    draw = lambda size, sizes=sizes: np.stack(
      [rng.permutation(num_nodes + 2)[:size] for _ in range(sizes[0])]
    ).astype(np.int32)
    edges = rng.standard_normal((*sizes, len(EDGE_FEATURES))).astype(np.float32)
    blocks.append(Block(draw(sizes[1]), draw(sizes[2]), edges))
  return tuple(blocks)


def assert_equal_to_jraph(params, nodes, blocks):
  weight = jnp.asarray(np.random.default_rng(9).standard_normal((len(nodes), 12)), jnp.float32)

  def by_blocks(params, nodes):
    return attend_blocks(params, nodes, blocks)

  def by_edges(params, nodes):
    return attend_edges(params, to_graphs_tuple(nodes, blocks))

  with jax.numpy_rank_promotion("allow"):  # inside jraph
    loss = lambda fn: jax.grad(lambda *args: (fn(*args) * weight).sum(), argnums=(0, 1))
    ours, theirs = jax.jit(by_blocks)(params, nodes), jax.jit(by_edges)(params, nodes)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    ours, theirs = (jax.jit(loss(fn))(params, nodes) for fn in (by_blocks, by_edges))
  for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(np.abs(other).max())))


def test_equal_to_jraph_on_random_blocks():
  for seed in range(3):
    rng = np.random.default_rng(seed)
    nodes = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32)
    assert_equal_to_jraph(random_attention(rng), nodes, random_blocks(rng, 8))


def test_equal_to_jraph_on_a_network(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  budgets = make_budgets(graph, {"macs": 0.5}, keep_floors(graph, 0.1))
  saliency = {"index": np.arange(graph.num_channels)}
  observation = observe(graph, e.variables, saliency, budgets)
  rng = np.random.default_rng(0)
  num_nodes = graph.num_channels + len(graph.layers)
  nodes = jnp.asarray(rng.standard_normal((num_nodes, 5)), jnp.float32)
  assert_equal_to_jraph(random_attention(rng), nodes, observation.blocks)


def test_large_logits_do_not_overflow():
  rng = np.random.default_rng(1)
  params = random_attention(rng)
  params = params._replace(send=1e4 * params.send, receive=1e4 * params.receive)
  nodes = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32)
  assert np.isfinite(attend_blocks(params, nodes, random_blocks(rng, 8))).all()


def test_a_node_without_edges_attends_to_itself():
  rng = np.random.default_rng(2)
  params, nodes = random_attention(rng), jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)
  expected = jnp.einsum("nf,fhd->nhd", nodes, params.query).reshape(3, -1)
  np.testing.assert_allclose(attend_blocks(params, nodes, ()), expected, rtol=1e-5)


def test_the_learned_layer_is_the_function():
  rng = np.random.default_rng(3)
  nodes, blocks = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32), random_blocks(rng, 8)
  layer = GraphAttention(heads=2, features=3)
  variables = layer.init(jax.random.key(0), nodes, blocks)
  p = variables["params"]
  params = Attention(p["query"], p["send"], p["receive"], p["edge"])
  np.testing.assert_allclose(
    layer.apply(variables, nodes, blocks), attend_blocks(params, nodes, blocks)
  )


def test_edges_hold_kernel_norms(example_b):
  e = example_b
  graph = gp.trace(e.eval_fn, e.variables, e.x)
  budgets = make_budgets(graph, {"macs": 0.5}, keep_floors(graph, 0.1))
  observation: Observation = observe(
    graph, e.variables, {"i": np.arange(graph.num_channels)}, budgets
  )
  kernel = np.asarray(e.variables["params"]["stage1_0"]["conv1"]["kernel"])
  norms = np.log(np.sqrt((kernel**2).sum((0, 1))))  # [in, out]
  stream, inner = graph.groups[0].channels, graph.groups[1].channels
  between = [
    edges
    for block in observation.blocks
    for senders, receivers, edges in zip(*block, strict=True)
    if np.array_equal(senders, stream) and np.array_equal(receivers, inner)
  ]
  forward = next(e for e in between if e[0, 0, EDGE_FEATURES.index("forward")] == 1)
  # Standardised over the whole network: one affine map takes norms to features.
  slope, offset = np.polyfit(norms.ravel(), forward[..., 0].ravel(), 1)
  assert slope > 0
  np.testing.assert_allclose(slope * norms + offset, forward[..., 0], atol=1e-4)
