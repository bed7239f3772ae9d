"""Pruning in rounds: a part of the way, fine-tuning, and on from there.

Every round goes an equal share of the way in the logarithm of each cost. Budgets and costs are
always shares of the first network's costs.
"""

from collections.abc import Callable, Mapping
import dataclasses
import sys
from typing import Any

import numpy as np

from gatprune_jax.channels import ChannelGraph, Constraints, Deployment, Origin, cut, whole
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network
from gatprune_jax.pruning.latency import LATENCY, measured_latencies
from gatprune_jax.pruning.pruned import Pruned, in_own_form
from gatprune_jax.runtime.processes import is_first

# Number of the round from 1 on, its network, its budgets -> its outcome.
Round = Callable[[int, Network, dict[str, float]], Pruned]


def check_rounds(rounds: Any, allow_empty: bool) -> None:
  """Raises InputError unless the number of rounds is one that can be run.

  Args:
    rounds: number of rounds.
    allow_empty: whether masks may remove whole groups.
  """
  if type(rounds) is not int or rounds < 1:
    raise InputError(f"rounds is {rounds!r}: it must be a whole number, at least 1")
  if rounds > 1 and allow_empty:
    raise InputError(
      f"rounds is {rounds} and search.allow_empty True: a network that lost whole groups cannot be "
      "traced again, so set one of them otherwise"
    )


def first_costs(
  network: Network, graph: ChannelGraph, rounds: int, deployment: Deployment
) -> dict[str, float] | None:
  """Returns {resource: cost} of the first network, of whose costs budgets are shares, or None.

  None means that they are shares of the network's own costs. For several rounds the network's own
  costs are returned, so that budgets which a later round would refuse are refused before the first.

  Args:
    network: the network to prune, which may have been cut from another one.
    graph: its channels.
    rounds: number of rounds.
    deployment: has the latency table of the first network, if latency is constrained.
  """
  origin = network.origin or (whole(graph) if rounds > 1 else None)
  if origin is None:
    return None
  table = deployment.latency_table
  return origin.costs | ({} if table is None else {LATENCY: table.dense_seconds})


def budgets_of_rounds(
  costs: Mapping[str, float], budgets: Mapping[str, float], rounds: int
) -> list[dict[str, float]]:
  """Returns the budgets of every round: d_k(r) = c_k (d_k / c_k)^(r / rounds), r = 1 ... rounds.

  Args:
    costs: {resource: share c_k of the first network's cost that the network has before pruning}.
    budgets: {resource: share d_k of the first network's cost that is allowed in the end}.
    rounds: number of rounds.
  """
  ratio = lambda name: min(1.0, budgets[name] / costs[name])
  *before, _ = [
    {name: min(1.0, costs[name] * ratio(name) ** (r / rounds)) for name in budgets}
    for r in range(1, rounds + 1)
  ]
  return [*before, dict(budgets)]  # the last budgets are those given, without rounding


def prune_in_rounds(
  network: Network,
  constraints: Constraints,
  rounds: int,
  prune_once: Round,
  folder: str | None = None,
  progress: bool = True,
) -> Pruned:
  """Prunes a network in rounds, each of which starts from the fine-tuned network of the one before.

  Args:
    network: the trained network.
    constraints: its channels and budgets, as shares of the first network's costs.
    rounds: number of rounds.
    prune_once: runs one round.
    folder: where measured latencies are kept at the end, beside the rounds; None keeps no file.
    progress: whether the number and budgets of a round are printed to standard error before it.

  Returns:
    The outcome of the last round, as one of the whole way: masks are of the given graph, and
    evaluations and seconds are those of all rounds. Its table has the given network in its first
    row, and the methods of the last round in the others, with latencies that are measured in turn
    with the given network's. Its explanation is of the last round.
  """
  graph = constraints.graph
  costs = constraints.costs(np.ones(graph.num_channels))
  budgets = dict(zip(constraints.names, constraints.limits.tolist(), strict=True))
  outcomes: list[Pruned] = []
  origins: list[Origin | None] = [None]  # what is left of the given network, after each round
  current = network
  for number, limits in enumerate(budgets_of_rounds(costs, budgets, rounds), start=1):
    if progress and is_first():
      shown = ", ".join(f"{name} {limit:.4g}" for name, limit in limits.items())
      print(f"round {number} of {rounds}: {shown} of the first network", file=sys.stderr)
    outcomes.append(prune_once(number, current, limits))
    current = outcomes[-1].trainable
    origins.append(cut(origins[-1], outcomes[-1].graph, outcomes[-1].mask))
  first, last = outcomes[0], outcomes[-1]
  of_first = lambda mask: cut(origins[-2], last.graph, mask).mask(graph)
  masks = {name: of_first(mask) for name, mask in last.masks.items()}
  rows = [first.rows[0], *last.rows[1:]]
  everything = np.ones(graph.num_channels, bool)
  latencies = measured_latencies(
    constraints, network, {rows[0].method: everything, **masks}, last.example, folder
  )
  return dataclasses.replace(
    last,
    module=in_own_form(network, current, last.example),
    mask=origins[-1].mask(graph),
    masks=masks,
    rows=[row._replace(latency=latencies.get(row.method, {})) for row in rows],
    graph=graph,
    search=last.search._replace(
      masks=np.stack([of_first(mask) for mask in last.search.masks]),
      evaluations=sum(outcome.search.evaluations for outcome in outcomes),
      seconds=sum(outcome.search.seconds for outcome in outcomes),
      passes=sum(outcome.search.passes for outcome in outcomes),
    ),
  )
