"""Tests of attention on blocks: its values and gradients equal those of jraph.GAT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import graph_attention, jraph_attention, observe, to_graphs_tuple
from gatprune_jax.agent.gat import Attention, GraphAttention
from gatprune_jax.channels import make_budgets
from gatprune_jax.kernels.attention import EDGE_FEATURES, FLAGS, Bipartite
from gatprune_jax.kernels.attention.blocks import TILE, stack_blocks, tiling_for

CPU = tiling_for("cpu")
attend = jax.jit(graph_attention)


def random_attention(rng, features=5, heads=3, width=4):
  normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  return Attention(
    normal(features, heads, width), normal(heads, width), normal(heads, width),
    normal(len(EDGE_FEATURES), heads),
  )  # fmt: skip


def random_sets(rng, num_nodes, largest=6, has_norms=(True, False), number=4):
  """Returns random sets of edges that overlap in senders and receivers.

  Some ids are at or above the number of nodes; their edges do not exist.

  Args:
    rng: a NumPy generator.
    num_nodes: number of nodes.
    largest: upper bound (exclusive) of the senders and of the receivers of a set.
    has_norms: values among which each set draws whether it has norms.
    number: number of sets.
  """
  sets = []
  for _ in range(number):
    sizes = rng.integers(1, largest, 2)
    senders, receivers = (rng.permutation(num_nodes + 2)[:size] for size in sizes)
    flags = rng.standard_normal(len(FLAGS)).astype(np.float32)
    norms = rng.standard_normal(sizes).astype(np.float32) if rng.choice(has_norms) else None
    sets.append(Bipartite(senders, receivers, flags, norms))
  return sets


def assert_equal_to_jraph(params, nodes, sets, edges):
  """Asserts that attention on a layout of sets has the values and gradients of jraph.

  Args:
    params: parameters of the attention.
    nodes: `[n, F]`.
    sets: the sets of edges, which jraph receives as an edge list.
    edges: the layout of the same sets.
  """
  weight = jnp.asarray(np.random.default_rng(9).standard_normal((len(nodes), 12)), jnp.float32)
  graph = to_graphs_tuple(None, sets, len(nodes))

  def value_and_gradients(fn, edges):
    loss = lambda *args: (fn(*args) * weight).sum()
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, nodes, edges)
    return jax.jit(fn)(params, nodes, edges), gradients

  ours, our_gradients = value_and_gradients(graph_attention, edges)
  theirs, their_gradients = value_and_gradients(jraph_attention, graph)
  np.testing.assert_allclose(ours, theirs, atol=1e-5)
  for one, other in zip(
    jax.tree.leaves(our_gradients), jax.tree.leaves(their_gradients), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(np.abs(other).max())))


def observed(example, edge_norms):
  """Returns the channel graph of an example network and its sets of edges, as in a search."""
  graph = gp.trace(example.eval_fn, example.variables, example.x)
  budgets = make_budgets(graph, {"macs": 0.5})
  saliency = {"index": np.arange(graph.num_channels)}
  return graph, observe(graph, example.variables, saliency, budgets, edge_norms).edges


def assert_equal_to_jraph_on(graph, sets, edges):
  rng = np.random.default_rng(0)
  num_nodes = graph.num_channels + len(graph.layers)
  nodes = jnp.asarray(rng.standard_normal((num_nodes, 5)), jnp.float32)
  assert_equal_to_jraph(random_attention(rng), nodes, sets, edges)


def assert_finite_where_logits_are_large(lay_out):
  rng = np.random.default_rng(1)
  params = random_attention(rng)
  params = params._replace(send=1e4 * params.send, receive=1e4 * params.receive)
  nodes = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32)
  edges = lay_out(random_sets(rng, 8), 8)
  value, gradient = jax.value_and_grad(lambda x: attend(params, x, edges).sum())(nodes)
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def assert_states_do_not_mix(lay_out):
  rng = np.random.default_rng(3)
  params, edges = random_attention(rng), lay_out(random_sets(rng, 40, 50), 40)
  states = jnp.asarray(0.3 * rng.standard_normal((3, 40, 5)), jnp.float32)
  weight = jnp.asarray(rng.standard_normal((40, 12)), jnp.float32)
  gradient = jax.grad(lambda nodes: (attend(params, nodes, edges) * weight).sum())
  together = jax.jit(jax.vmap(gradient))(states)
  alone = jnp.stack([jax.jit(gradient)(state) for state in states])
  np.testing.assert_allclose(together, alone, atol=1e-5 * float(np.abs(alone).max()))


def test_equal_to_jraph_on_random_blocks():
  for seed in range(3):
    rng = np.random.default_rng(seed)
    nodes = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32)
    params, sets = random_attention(rng), random_sets(rng, 8)
    assert_equal_to_jraph(params, nodes, sets, stack_blocks(sets, CPU))


# A slice has room for two tiles together with their nodes, so every stack of tiles needs many
# slices.
MANY_SLICES = {"at_once": 3 * TILE**2}


@pytest.mark.parametrize(
  "tiling",
  [CPU._replace(sorts_from=TILE, **MANY_SLICES), tiling_for("gpu")._replace(**MANY_SLICES)],
)
@pytest.mark.parametrize("has_norms", [True, False])
def test_equal_to_jraph_on_large_blocks(has_norms, tiling):
  rng = np.random.default_rng(5)
  nodes = jnp.asarray(0.3 * rng.standard_normal((320, 5)), jnp.float32)
  sets = random_sets(rng, 320, 300, (has_norms,))
  blocks = stack_blocks(sets, tiling)
  assert any(len(block.senders) > 1 for block in blocks) or not has_norms
  large = any(min(b.senders.shape[2], b.receivers.shape[2]) > TILE for b in blocks)
  # Blocks larger than a tile exist exactly where some sets are evaluated by sorting.
  assert large == (tiling.sorts_from == TILE and not has_norms)
  assert_equal_to_jraph(random_attention(rng), nodes, sets, blocks)


@pytest.mark.parametrize("edge_norms", [True, False])
def test_equal_to_jraph_on_a_network(example_b, edge_norms):
  graph, sets = observed(example_b, edge_norms)
  assert_equal_to_jraph_on(graph, sets, stack_blocks(sets, CPU))


def test_parts_of_a_set_are_the_whole():
  rng = np.random.default_rng(7)
  # The scores are in the hundreds, so that the sums of each part have to be scaled down where
  # another part has a larger logit.
  params = random_attention(rng)
  nodes = 30.0 * jnp.asarray(rng.standard_normal((40, 5)), jnp.float32)
  senders, receivers = rng.permutation(40)[:30], rng.permutation(40)[:20]
  norms = rng.standard_normal((30, 20)).astype(np.float32)
  of_flags = rng.standard_normal(len(FLAGS)).astype(np.float32)
  parts = [
    Bipartite(senders[some], receivers, of_flags, norms[some])
    for some in np.split(np.arange(30), [1, 4, 20])
  ]
  whole = Bipartite(senders, receivers, of_flags, norms)
  apart, together = (attend(params, nodes, stack_blocks(sets, CPU)) for sets in (parts, [whole]))
  np.testing.assert_allclose(apart, together, rtol=1e-4, atol=1e-4)


def test_large_logits_do_not_overflow():
  assert_finite_where_logits_are_large(lambda sets, _: stack_blocks(sets, CPU))


def test_several_states_at_once():
  assert_states_do_not_mix(lambda sets, _: stack_blocks(sets, CPU))


def test_a_node_without_edges_attends_to_itself():
  rng = np.random.default_rng(2)
  params, nodes = random_attention(rng), jnp.asarray(rng.standard_normal((3, 5)), jnp.float32)
  expected = jnp.einsum("nf,fhd->nhd", nodes, params.query).reshape(3, -1)
  np.testing.assert_allclose(attend(params, nodes, ()), expected, rtol=1e-5)


def test_the_learned_layer_is_the_function():
  rng = np.random.default_rng(3)
  nodes = jnp.asarray(rng.standard_normal((8, 5)), jnp.float32)
  blocks = stack_blocks(random_sets(rng, 8), CPU)
  layer = GraphAttention(heads=2, features=3)
  variables = jax.jit(layer.init)(jax.random.key(0), nodes, blocks)
  p = variables["params"]
  params = Attention(p["query"], p["send"], p["receive"], p["edge"])
  np.testing.assert_allclose(
    jax.jit(layer.apply)(variables, nodes, blocks), attend(params, nodes, blocks)
  )


def test_edges_hold_kernel_norms(example_b):
  graph, sets = observed(example_b, edge_norms=True)
  kernel = np.asarray(example_b.variables["params"]["stage1_0"]["conv1"]["kernel"])
  norms = np.log(np.sqrt((kernel**2).sum((0, 1))))  # [in, out]
  stream, inner = graph.groups[0].channels, graph.groups[1].channels
  num_in, num_out = norms.shape
  forward = next(
    edges.norms
    for edges in sets
    if edges.flags[FLAGS.index("forward")]
    and np.array_equal(edges.senders, stream)
    and np.array_equal(edges.receivers, inner)
  )
  assert forward.shape == (num_in, num_out)
  # The features are the norms standardised over the whole network, so one affine map must take
  # norms to features.
  slope, offset = np.polyfit(norms.ravel(), forward.ravel(), 1)
  assert slope > 0
  np.testing.assert_allclose(slope * norms + offset, forward, atol=1e-4)
