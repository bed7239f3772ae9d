"""Makes, from the settings, what all methods of an experiment start from."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from experiments.common import dense
from experiments.common.settings import Settings
import gatprune_jax as gp
from gatprune_jax.channels import Constraints, make_constraints
from gatprune_jax.data import Dataset
from gatprune_jax.pruning import first_costs, with_table
from gatprune_jax.search import PruningProblem, check_search, make_problem


class Setup(NamedTuple):
  """What can be made of the settings before the weights are trained."""

  data: Dataset
  dense: dense.Dense
  constraints: Constraints  # the network's channel graph, budgets and floors


def set_up(
  settings: Settings, limits: Mapping[str, float | str], workdir: str | None = None
) -> Setup:
  """Loads the data, makes the network and traces its channels; writes nothing.

  Args:
    settings: settings of the experiment.
    limits: {resource: largest share of the dense network's cost, or a cost with its unit}.
    workdir: where a run that goes on has its latency table; None: latency needs `latency.table`.

  Raises:
    InputError: if the settings do not fit the data, or the budgets cannot be reached.
  """
  data = dense.load_data(settings)
  made = dense.make_network(settings, data)
  constraints = constraints_of(settings, made.network, data, limits, workdir)
  check_search(settings.search, data, settings.seed)
  return Setup(data, made, constraints)


def constraints_of(
  settings: Settings,
  network: gp.Network,
  data: Dataset,
  limits: Mapping[str, float | str],
  workdir: str | None = None,
) -> Constraints:
  """Traces a network's channels, and returns them with their budgets and floors.

  Args:
    settings: settings of the experiment.
    network: the network.
    data: the data set, of which the first training example is used.
    limits: {resource: largest share of the cost of the first network that this one was cut from, or
      of its own cost; or a cost with its unit}.
    workdir: as in `set_up`.

  Raises:
    InputError: if the budgets cannot be reached, or latency is constrained without a table.
  """
  example = jnp.asarray(data.train.x[:1])
  graph = gp.trace(network.eval_fn, network.variables, example)
  search = settings.search
  deployment = dataclasses.replace(
    settings.deployment, latency_table=settings.latency.table or None
  )
  if workdir is not None:
    deployment = with_table(deployment, limits, network, graph, example, workdir)
  first = first_costs(network, graph, settings.rounds, deployment)
  return make_constraints(graph, limits, search.keep_floor, search.allow_empty, deployment, first)


def problem_of(settings: Settings, prepared: Setup, variables: Any) -> PruningProblem:
  """Makes the pruning problem of the trained network; see `make_problem`.

  Args:
    settings: settings of the experiment.
    prepared: data, dense network and constraints, from `set_up`.
    variables: variables of the trained dense network.
  """
  network = prepared.dense.network.with_variables(variables)
  return make_problem(
    network, prepared.constraints, prepared.data,
    config=settings.search, criteria=settings.criteria, seed=settings.seed,
  )  # fmt: skip
