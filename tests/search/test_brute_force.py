"""Tests of the agent against the enumeration of all 4,096 masks of a network of twelve channels."""

import dataclasses
import functools
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gatprune_jax as gp
from gatprune_jax.agent import CriticConfig, PPOConfig
from gatprune_jax.channels import RESOURCES, make_constraints
from gatprune_jax.criteria import Evidence, classical_pruners, score_channels
from gatprune_jax.data import Split
from gatprune_jax.networks import CLASSIFICATION, Network
from gatprune_jax.search import PruningProblem, Scorer, search
from tests.channels.costs.latency_tables import table_of
from tests.search import test_search

CONFIG = dataclasses.replace(
  test_search.CONFIG, updates=40, samples=16, keep_floor=0.0, past_scores=64, warm_start=0.5,
  refinement=32, elites=8, shortlist=1, chunk=16, ppo=PPOConfig(4, 0.2, 0.1, 0.0, 3e-3, 0.1, 1.0),
  critic=CriticConfig(256, 0.1, 0.5),
)  # fmt: skip
WIDTHS = (6, 5, 4, 3, 3)  # features, twelve hidden channels in three layers, classes
LONG, SLOW = (os.environ.get(name) == "1" for name in ("GATPRUNE_LONG", "GATPRUNE_SLOW"))
SEEDS = 5 if SLOW else 3 if LONG else 1  # searches of each problem


def apply(v, x):
  for kernel in v["hidden"]:
    x = jax.nn.relu(x @ kernel)
  return x @ v["head"]


@pytest.fixture(scope="module")
def trained():
  """Returns weights that are fitted to three noisy clusters of points, and the points."""
  rng = np.random.default_rng(0)
  y = np.arange(150, dtype=np.int32) % 3
  x = (rng.standard_normal((3, 6))[y] + 0.7 * rng.standard_normal((150, 6))).astype(np.float32)
  kernels = [
    jnp.asarray(rng.standard_normal(pair) / np.sqrt(pair[0] / 2), jnp.float32)
    for pair in itertools.pairwise(WIDTHS)
  ]
  variables = {"hidden": kernels[:-1], "head": kernels[-1]}
  optimizer = optax.adam(0.02)

  @jax.jit
  def fit(variables):
    def loss(v):
      return optax.softmax_cross_entropy_with_integer_labels(apply(v, x), y).mean()

    def step(_, carry):
      v, state = carry
      updates, state = optimizer.update(jax.grad(loss)(v), state)
      return optax.apply_updates(v, updates), state

    return jax.lax.fori_loop(0, 300, step, (variables, optimizer.init(variables)))[0]

  return fit(variables), Split(x, y)


@functools.partial(jax.tree_util.register_dataclass, data_fields=("table",), meta_fields=("unit",))
@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
  """A latency that is looked up by the widths of the three hidden layers; it grows in steps."""

  table: np.ndarray  # [6, 5, 4]
  unit: str = "seconds"

  def _widths(self, mask):
    ends = list(itertools.accumulate(WIDTHS[1:-1]))
    return [mask[end - width : end].sum() for end, width in zip(ends, WIDTHS[1:-1], strict=True)]

  def cost(self, mask):
    if not isinstance(mask, jax.core.Tracer):
      return self.table[tuple(int(width) for width in self._widths(np.asarray(mask)))]
    # Under a trace, straight lines join the steps, so that the cost has a gradient.
    return jax.scipy.ndimage.map_coordinates(
      jnp.asarray(self.table, jnp.float32), [1.0 * width for width in self._widths(mask)], order=1
    )

  def gradient(self, mask):
    return jax.grad(self.cost)(jnp.asarray(mask, jnp.float32))

  def with_one_more(self, mask):
    return np.array([self.cost(mask | (np.arange(len(mask)) == n)) for n in range(len(mask))])


def lookup(graph, deployment):
  """Returns a latency in which the widths are rounded up to even numbers, as hardware does."""
  widths = np.indices([width + 1 for width in WIDTHS[1:-1]])
  a, b, c = 2 * -(-widths // 2)
  return Lookup(5.0 + 3 * a + a * b + b * c + 2 * c)


def make_problem(trained, limits, deployment=None):
  variables, split = trained
  graph = gp.trace(apply, variables, split.x[:1])
  assert graph.num_channels == 12
  constraints = make_constraints(graph, limits, 0.0, deployment=deployment)
  network = Network(apply, lambda v, x: (apply(v, x), {}), variables)
  evidence = Evidence(graph, network, CLASSIFICATION, split.x, split.y, jax.random.key(0))
  saliency = {"l1": score_channels("l1", evidence)}
  pruners = classical_pruners(constraints, saliency)
  # All splits hold the same points, so that there is one optimum.
  return PruningProblem(
    network, CLASSIFICATION, constraints, split, split, split, pruners, saliency
  )


@pytest.mark.parametrize(
  "limits",
  [
    {"macs": 0.5},
    pytest.param({"latency": 0.55, "params": 0.6}, marks=pytest.mark.long),
    *(
      pytest.param(limits, marks=pytest.mark.slow)
      for limits in ({"macs": 0.6}, {"macs": 0.45}, {"latency": 0.5}, {"latency": 0.6, "macs": 0.5})
    ),
  ],
)
def test_the_returned_mask_is_within_one_percent_of_the_optimum(trained, limits, monkeypatch):
  monkeypatch.setitem(RESOURCES, "latency", lookup)
  check_against_all_masks(make_problem(trained, limits))


def check_against_all_masks(problem):
  """Checks that searches return masks within one percent of the best feasible one."""
  everything = np.array(list(itertools.product([False, True], repeat=12)))
  scores, _ = Scorer(problem, CONFIG)(everything)
  wide = np.stack([everything[:, g.channels].any(1) for g in problem.constraints.graph.groups]).all(
    0
  )
  feasible = wide & np.array([problem.constraints.feasible(mask) for mask in everything])
  optimum = scores[feasible].max()
  # A good mask is hard to find by chance: more than a thousand masks are feasible, and at most five
  # are within one percent of the optimum.
  assert (scores[feasible] >= 0.99 * optimum).sum() <= 5 < 1000 < feasible.sum()
  for seed in range(SEEDS):
    result = search(problem, CONFIG, seed)
    assert problem.constraints.feasible(result.masks[0])
    assert result.scores[0] >= 0.99 * optimum, (seed, result.scores[0] / optimum)
    assert result.evaluations <= 640


@pytest.mark.parametrize(
  ("share", "block"),
  [
    pytest.param(0.6, 1, marks=pytest.mark.slow),
    pytest.param(0.45, 1, marks=pytest.mark.long),
    # Sampled masks keep one channel of a group, an even number, or all of them.
    pytest.param(0.45, 2, marks=pytest.mark.long),
  ],
)
def test_so_it_is_within_a_table_of_latencies(trained, share, block):
  variables, split = trained
  graph = gp.trace(apply, variables, split.x[:1])
  # Two outputs may be slower than three.
  factors = (3, 1, 1, 2)
  seconds_of = lambda layer, widths: factors[layer] * float(np.prod(widths)) + 3 * (widths[-1] == 2)
  table = table_of(graph, seconds_of, constant=1.0, block=block)
  check_against_all_masks(
    make_problem(trained, {"latency": share}, gp.Deployment(latency_table=table))
  )
