"""Tests of attention on tiles: layout, kernels (interpreted where there is no GPU), gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.agent import graph_attention
from gatprune_jax.kernels.attention import lay_out, tile_programs
from gatprune_jax.kernels.attention.blocks import Block
from gatprune_jax.kernels.attention.edges import EDGE_FEATURES, Bipartite, flags
from gatprune_jax.kernels.attention.on_tiles import attend_tiles
from gatprune_jax.kernels.attention.tiles import PLACES_AT_ONCE, SIDE, Tiles, tile_sets
from tests.agent.test_gat import (
  assert_equal_to_jraph,
  assert_equal_to_jraph_on,
  assert_finite_where_logits_are_large,
  assert_states_do_not_mix,
  observed,
  random_attention,
  random_sets,
)
from tests.kernels.attention.test_blocks import NUM_NODES, bipartite, norm_of_edge


@pytest.fixture(autouse=True)
def _exact_products():
  """Raises the precision of matrix products, which a GPU otherwise rounds to ten bits."""
  with jax.default_matmul_precision("highest"):
    yield


def as_block(tiles):
  """Returns the edges of tiles as a `Block`, one slice of sets."""
  lines = tiles.receivers.lines
  row = np.repeat(np.arange(len(lines)), lines[:, 1])
  along = np.concatenate([np.arange(number) for number in lines[:, 1]])
  column, tile = lines[row, 0] + along, lines[row, 2] + along * lines[row, 3]
  return Block(
    tiles.senders.ids[column][None],
    tiles.receivers.ids[row][None],
    tiles.receivers.flags[row][None],
    tiles.transposed[tile][None],
  )


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("size", [(3, 5), (1, 70), (70, 1), (33, 64), (1, 1), (600, 40)])
def test_every_edge_is_in_one_tile_once(size, norms):
  edges = bipartite(np.random.default_rng(0), *size, norms)
  block = as_block(tile_sets([edges], NUM_NODES))
  found = {}
  for k in range(block.senders.shape[1]):
    more = norm_of_edge(block.senders[0, k], block.receivers[0, k], block.norms[0, k])
    np.testing.assert_array_equal(block.flags[0, k], flags(forward=True))
    assert more
    assert not found.keys() & more.keys()
    found |= more
  assert found == norm_of_edge(edges.senders, edges.receivers, edges.norms)


def test_columns_go_through_the_tiles_that_rows_do():
  rng = np.random.default_rng(1)
  tiles = tile_sets([bipartite(rng, 100, 70), bipartite(rng, 40, 90, norms=False)], NUM_NODES)

  def visited(ends):
    return {
      (line, first + i, tile + i * step)
      for line, (first, number, tile, step) in enumerate(ends.lines.tolist())
      for i in range(number)
    }

  rows = visited(tiles.receivers)
  assert rows == {(row, column, tile) for column, row, tile in visited(tiles.senders)}
  assert {tile for _, _, tile in rows} == set(range(len(tiles.norms)))  # tile 0 has zero norms
  np.testing.assert_array_equal(tiles.norms.transpose(0, 2, 1), tiles.transposed)
  assert not tiles.norms[0].any()


def test_slots_are_the_places_of_each_node():
  rng = np.random.default_rng(2)
  ends = tile_sets(random_sets(rng, 50, 60, number=20), 50).receivers
  most = 0
  for node, slots in enumerate(ends.slots):
    places = np.flatnonzero(ends.ids.ravel() == node) if node < 50 else []
    np.testing.assert_array_equal(slots[slots < ends.ids.size], places)
    most = max(most, len(places))
  assert len(ends.slots) >= 50
  assert ends.chunks.max() * PLACES_AT_ONCE >= most


@pytest.mark.parametrize("has_norms", [(True,), (False,), (True, False)])
def test_equal_to_jraph(has_norms):
  rng = np.random.default_rng(5)
  nodes = jnp.asarray(0.3 * rng.standard_normal((90, 5)), jnp.float32)
  sets = random_sets(rng, 90, 80, has_norms)
  assert_equal_to_jraph(random_attention(rng), nodes, sets, tile_sets(sets, 90))


def test_equal_to_jraph_where_nodes_have_more_places_than_are_gathered_at_once():
  rng = np.random.default_rng(6)
  nodes = jnp.asarray(0.3 * rng.standard_normal((10, 5)), jnp.float32)
  sets = random_sets(rng, 10, 10, number=40)
  tiles = tile_sets(sets, 10)
  assert tiles.receivers.chunks.max() > 1
  assert tiles.senders.chunks.max() > 1
  assert_equal_to_jraph(random_attention(rng), nodes, sets, tiles)


def test_equal_to_jraph_on_a_network(example_b, monkeypatch):
  graph, sets = observed(example_b, edge_norms=True)
  num_nodes = graph.num_channels + len(graph.layers)
  with monkeypatch.context() as m:
    m.setattr(tile_programs, "run_here", lambda: True)
    tiles = lay_out(sets, num_nodes)
  assert isinstance(tiles, Tiles)
  assert_equal_to_jraph_on(graph, sets, tiles)


def test_several_states_at_once():
  assert_states_do_not_mix(tile_sets)


def test_large_logits_do_not_overflow():
  assert_finite_where_logits_are_large(tile_sets)


def test_a_node_without_edges_attends_to_itself():
  rng = np.random.default_rng(2)
  params, nodes = random_attention(rng), jnp.asarray(rng.standard_normal((5, 5)), jnp.float32)
  one = Bipartite(np.array([0]), np.array([1]), flags(forward=True), None)
  alone = np.array([0, 2, 3, 4])  # only node 1 receives
  expected = jnp.einsum("nf,fhd->nhd", nodes, params.query).reshape(5, -1)
  attended = graph_attention(params, nodes, tile_sets([one], 5))
  np.testing.assert_allclose(attended[alone], expected[alone], rtol=1e-5, atol=1e-6)
  assert np.abs(attended[1] - expected[1]).max() > 1e-3


@pytest.mark.parametrize("features", [8, 16, 20])
def test_all_kernels_compile_for_a_gpu(features, monkeypatch):
  monkeypatch.setattr(tile_programs, "run_here", lambda: True)
  rng = np.random.default_rng(7)
  tiles = tile_sets([bipartite(rng, 2 * SIDE, SIDE)], NUM_NODES)
  heads = 4
  shapes = [(heads, NUM_NODES), (heads, NUM_NODES), (heads, NUM_NODES, features)]
  inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (*shapes, (len(EDGE_FEATURES), heads))]
  loss = lambda *args: attend_tiles(*args).sum()
  traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).trace(*inputs, tiles)
  try:
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  except RuntimeError as error:
    if "No supported GPU" not in str(error):
      raise
    pytest.skip("this version of JAX compiles kernels only where there is a GPU")
  for kernel in ("_row_kernel", "_merge_kernel", "_column_kernel", "_add_kernel"):
    assert kernel in text
