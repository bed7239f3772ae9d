"""Tests of measuring: which programs are timed, and how times become a table."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gatprune_jax as gp
from gatprune_jax.channels.measuring import layers, networks, random_widths, tables
from gatprune_jax.channels.tracing.relabelling import bind
from gatprune_jax.runtime import timing
from tests.channels.costs.test_latency import Varied
from tests.conftest import Example


class Pair(nn.Module):
  """Three layers, the second and third of which have the same shape."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Conv(8, (3, 3), strides=2, use_bias=False)(x))
    for _ in range(2):
      x = nn.relu(nn.Conv(8, (3, 3), use_bias=False)(x))
    return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def pair():
  example = Example(Pair())
  return example, gp.trace(example.eval_fn, example.variables, example.x[:1])


def programs_of(example, graph, batch):
  x = networks.examples(example.eval_fn, example.variables, example.x[:1], batch)
  return layers.layer_programs(graph, bind(graph, example.eval_fn, (example.variables, x)))


def contractions(fn, *args):
  """Returns the shapes of operands and result of every convolution and dot product of a program."""
  found = []

  def walk(jaxpr):
    for eqn in jaxpr.eqns:
      if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
        found.append(tuple(var.aval.shape for var in (*eqn.invars, *eqn.outvars)))
      for inner in jax.extend.core.jaxprs_in_params(eqn.params):
        walk(inner)

  walk(jax.make_jaxpr(fn)(*args).jaxpr)
  return found


@pytest.mark.parametrize("module", [Varied, Pair])
def test_the_timed_layers_are_those_of_the_compact_network(module):
  example = Example(module())
  graph = gp.trace(example.eval_fn, example.variables, example.x[:1])
  rng = np.random.default_rng(0)
  for _ in range(3):
    mask = random_widths(graph, rng)
    small = gp.compact(graph, example.eval_fn, example.variables, mask)
    expected = contractions(small.apply, small.variables, example.x[:3])
    found = []
    for each in programs_of(example, graph, 3):
      kept = [len({c for c in ids.tolist() if c >= 0 and mask[c]}) for ids in each.layer.cut_axes]
      run, arguments = each.program(kept)
      assert jax.eval_shape(run, *arguments).shape == contractions(run, *arguments)[0][-1]
      found += contractions(run, *arguments)
    assert found == expected


def test_equal_layers_are_one_shape(pair):
  example, graph = pair
  signatures = [each.signature() for each in programs_of(example, graph, 1)]
  assert signatures[1] == signatures[2]
  assert len(set(signatures)) == 3
  assert signatures != [each.signature() for each in programs_of(example, graph, 2)]


def test_knots_are_multiples_of_blocks():
  assert tables.knots(16, 8) == [1, 4, 8, 16]
  assert tables.knots(24, 8) == [1, 4, 8, 16, 24]
  assert tables.knots(64, 8) == [8, 16, 32, 48, 64]
  assert tables.knots(960, 8) == [8, 240, 480, 720, 960]
  assert tables.knots(3, 8) == [1, 3]
  assert tables.knots(512, 128) == [1, 64, 128, 256, 384, 512]


def test_random_widths_are_multiples(pair):
  _, graph = pair
  masks = [random_widths(graph, np.random.default_rng(n), 0.0, 1.0, 3) for n in range(20)]
  widths = {int(mask[group.channels].sum()) for mask in masks for group in graph.groups}
  assert widths == {3, 6, 8}


def test_a_line_is_fitted_to_relative_errors():
  summed = np.array([1.0, 2.0, 5.0])
  assert tables.fit_line(summed, 0.5 + 3 * summed) == pytest.approx((0.5, 3.0))
  # The best line would begin below 0: of 2 s - 1, sum of (f s / t - 1)^2 is least at f.
  ratios = summed / (2 * summed - 1)
  constant, factor = tables.fit_line(summed, 2 * summed - 1)
  assert constant == 0
  assert factor == pytest.approx(ratios.sum() / (ratios**2).sum())


def test_what_slows_whole_rounds_is_taken_out():
  seconds = np.array([1.0, 2.0, 4.0])
  levels = np.array([1.0, 9.0, 2.0, 30.0, 1.0])
  np.testing.assert_allclose(timing.typical(levels[:, None] * seconds), 2.0 * seconds)


def test_programs_are_timed_with_and_without_values():
  loop = lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y @ x), x)
  x = jax.ShapeDtypeStruct((10, 10), jnp.bfloat16)
  programs = [
    timing.as_program(lambda x, shift: {"sum": x + shift}, np.ones(3), 1.0),
    timing.as_program(loop, x, with_values=False),
  ]
  seconds = timing.time_in_turn(programs, 0.0)
  assert seconds.shape == (15, 2)
  assert (seconds > 0).all()
  assert timing.time_in_turn(programs, 3600.0).shape == (200, 2)
  broken = programs[0]._replace(exported=b"no program")
  with pytest.raises(RuntimeError, match="the process that times programs failed: "):
    timing.time_in_turn([broken])


def test_a_network_is_measured_before_it_is_trained(pair):
  example, graph = pair
  shapes = jax.eval_shape(lambda: example.variables)
  table = gp.measure_latency(graph, example.eval_fn, shapes, example.x[:1], batch=2)
  table.check_network(graph)
  assert (table.batch, table.block, table.threads) == (2, 8, 1)
  assert table.device == gp.channels.device_name()
  assert [layer.shape for layer in table.layers] == [0, 1, 1, 2]
  assert [shape.widths for shape in table.shapes] == [
    ((1, 4, 8),), ((1, 4, 8), (1, 4, 8)), ((1, 4, 8),)
  ]  # fmt: skip
  assert table.factor > 0
  assert gp.latency(graph, np.ones(graph.num_channels), table) > 0
  with pytest.raises(gp.InputError, match="batch is 0: latency is measured of one example"):
    gp.measure_latency(graph, example.eval_fn, shapes, example.x[:1], batch=0)
