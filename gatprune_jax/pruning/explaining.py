"""Explains a mask: which channels are gone, and how much of them those that are left explain."""

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import measure_compensation
from gatprune_jax.criteria import Evidence, score_channels
from gatprune_jax.reporting import Explanation, explain
from gatprune_jax.search import PruningProblem, SearchConfig


def explain_mask(problem: PruningProblem, mask: np.ndarray, config: SearchConfig) -> Explanation:
  """Returns what a mask makes of the problem's network.

  Channels explain each other by the matrices with which the search compensates weights. They are
  measured for this purpose where the search does not compensate.

  Args:
    problem: the dense network and the training examples.
    mask: bool `[N]`, 1 = keep.
    config: settings of the compensation.
  """
  graph, network = problem.constraints.graph, problem.network
  compensation = problem.evaluator(config).weights.compensation
  if compensation is None:
    inputs = jnp.asarray(problem.train.x[: config.calibration_images])
    compensation = measure_compensation(graph, network.eval_fn, network.variables, inputs)
  one = problem.train.first(1)
  evidence = Evidence(
    graph, network, problem.task, jnp.asarray(one.x), jax.tree.map(jnp.asarray, one.y),
    jax.random.key(0),
  )  # fmt: skip
  return explain(graph, mask, score_channels("l1", evidence), compensation)
