"""Tests of how sets of edges are cut, padded and stacked into blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.agent import graph_attention
from gatprune_jax.agent.gat import Attention
from gatprune_jax.kernels.attention.blocks import TILE, sorts, stack_blocks, tiling_for
from gatprune_jax.kernels.attention.edges import EDGE_FEATURES, FLAGS, Bipartite, flags

NUM_NODES = 4096


def bipartite(rng, num_senders, num_receivers, norms=True):
  draw = lambda size: rng.permutation(NUM_NODES)[:size]
  return Bipartite(
    draw(num_senders),
    draw(num_receivers),
    flags(forward=True),
    rng.standard_normal((num_senders, num_receivers)).astype(np.float32) if norms else None,
  )


def norm_of_edge(senders, receivers, norms):
  """Returns {(sender, receiver): norm} of the edges that exist; raises if an edge appears twice.

  Args:
    senders: node ids `[S]`.
    receivers: node ids `[R]`.
    norms: `[S, R]`, or None for zeros.
  """
  found = {}
  real = (senders < NUM_NODES)[:, None] & (receivers < NUM_NODES)[None]
  for i, j in zip(*np.nonzero(real), strict=True):
    edge = int(senders[i]), int(receivers[j])
    assert edge not in found
    found[edge] = 0.0 if norms is None else float(norms[i, j])
  return found


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("size", [(3, 5), (1, 300), (300, 1), (130, 40), (1, 1), (200, 300)])
def test_every_edge_is_in_one_block_once(size, norms, backend):
  edges = bipartite(np.random.default_rng(0), *size, norms)
  found = {}
  for block in stack_blocks([edges], tiling_for(backend)):
    assert block.senders.dtype == block.receivers.dtype == np.int32
    for m, k in np.ndindex(block.senders.shape[:2]):
      own = None if block.norms is None else block.norms[m, k]
      more = norm_of_edge(block.senders[m, k], block.receivers[m, k], own)
      if more:
        np.testing.assert_array_equal(block.flags[m, k], flags(forward=True))
      assert not found.keys() & more.keys()
      found |= more
  assert found == norm_of_edge(edges.senders, edges.receivers, edges.norms)


@pytest.mark.parametrize(("backend", "num_sides"), [("cpu", 4), ("gpu", 1)])
def test_shapes_are_few_however_many_widths_there_are(backend, num_sides):
  rng = np.random.default_rng(1)
  sets = [bipartite(rng, *rng.integers(2, 400, 2)) for _ in range(200)]
  blocks = stack_blocks(sets, tiling_for(backend))
  # Two further shapes are stars, which arise where one node remains after cutting.
  assert len(blocks) <= num_sides**2 + 2
  assert all(max(block.norms.shape[2:]) <= TILE for block in blocks)


def test_slices_bound_edges_and_what_their_ends_hold():
  rng = np.random.default_rng(4)
  stars = [bipartite(rng, 1, TILE, norms=False) for _ in range(8)]
  squares = [bipartite(rng, TILE, TILE) for _ in range(8)]
  tiling = tiling_for("cpu")._replace(at_once=2**16)
  # A star has 128 edges, and 129 nodes that count as 16 edges each. A square has 128^2 edges and
  # 256 nodes.
  assert [len(block.senders) for block in stack_blocks([*stars, *squares], tiling)] == [1, 3]
  tiling = tiling._replace(at_once=2**14)
  assert [len(block.senders) for block in stack_blocks([*stars, *squares], tiling)] == [2, 8]


def test_only_large_sets_without_norms_sort():
  assert sorts(TILE + 1, TILE + 1, has_norms=False)
  assert not sorts(TILE + 1, TILE + 1, has_norms=True)
  assert not sorts(TILE, 10 * TILE, has_norms=False)
  edges = bipartite(np.random.default_rng(2), 2 * TILE + 1, 2 * TILE + 2, norms=False)
  (block,) = stack_blocks([edges], tiling_for("cpu"))
  assert block.senders.shape == block.receivers.shape == (1, 1, 4 * TILE)
  # On a GPU only sets with longer sides are sorted, so this set is cut into tiles.
  for block in stack_blocks([edges], tiling_for("gpu")):
    assert max(block.senders.shape[2], block.receivers.shape[2]) <= TILE


def sizes(jaxpr):
  """Yields the size of every array that a jaxpr computes, including those of inner jaxprs."""
  for eqn in jaxpr.eqns:
    yield from (var.aval.size for var in eqn.outvars)
    for inner in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
    ):
      if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
        yield from sizes(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("norms", [True, False])
def test_nothing_of_all_edges_size_is_made(norms):
  heads, width, num_edges = 2, 2, 2 * 2048 * 2048
  rng = np.random.default_rng(3)
  sets = [bipartite(rng, 2048, 2048, norms) for _ in range(2)]
  blocks = stack_blocks(sets, tiling_for("cpu"))
  params = Attention(
    *(jnp.ones(shape) for shape in ((3, heads, width), (heads, width), (heads, width))),
    jnp.ones((len(EDGE_FEATURES), heads)),
  )

  def loss(params, nodes, blocks):
    return graph_attention(params, nodes, blocks).sum()

  shapes = jax.eval_shape(lambda x: x, (params, jnp.ones((NUM_NODES, 3)), blocks))
  jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*shapes).jaxpr
  assert max(sizes(jaxpr)) <= num_edges / 8
  assert EDGE_FEATURES[1:] == FLAGS
