"""Latency in a pruning run: the table for its budget, and what the networks take at the end."""

from collections.abc import Mapping
import dataclasses
import math
import os
import sys
from typing import Any

import numpy as np

from gatprune_jax.channels import (
  ChannelGraph,
  Constraints,
  Deployment,
  Timing,
  device_name,
  is_share,
  measure_latency,
  read_latency_table,
  read_limit,
  time_masks,
  write_latency_table,
)
from gatprune_jax.errors import InputError
from gatprune_jax.networks import Network
from gatprune_jax.runs.workdir import read_json, write_json
from gatprune_jax.runtime.processes import from_first, is_first

LATENCY = "latency"  # the resource's name
_TABLE, _MEASURED = "latency_table.json", "latency.json"  # files of a workdir

# {method: {number of examples in a forward pass, as text: what the method's network takes}}.
Latencies = dict[str, dict[str, Timing]]


def with_table(
  deployment: Deployment,
  budgets: Mapping[str, float | str],
  network: Network,
  graph: ChannelGraph,
  x: Any,
  folder: str | None,
  progress: bool = True,
) -> Deployment:
  """Returns the deployment with a latency table, where a budget for latency lacks one.

  A run that goes on takes the table that `keep_table` wrote, so that its limits stay the same, and
  so do its later rounds. Any other run measures one, which takes a minute or some.

  Args:
    deployment: how the pruned network is going to be run.
    budgets: {resource: limit}.
    network: the network to prune; its variables may be shapes.
    graph: its channels.
    x: an example `[1, ...]`.
    folder: the run's workdir; None if there is none.
    progress: whether a line on standard error says that layers are measured.

  Raises:
    InputError: if the limit is one that `read_limit` refuses, the workdir's table is damaged or of
      another device, or the limit is a share and the network was cut from one without a table.
  """
  if LATENCY not in budgets or deployment.latency_table is not None:
    return deployment
  read_limit(LATENCY, budgets[LATENCY], "seconds", math.inf)  # before the long measurement

  def make():
    path = None if folder is None else os.path.join(folder, _TABLE)
    if path is not None and os.path.exists(path):
      table = read_latency_table(path)
      if table.device != (here := device_name()):
        raise InputError(
          f"the run's latency table {path} is of {table.device}, but this device is {here}: go on "
          "there, or start another run and name the table, which then counts for any device"
        )
      return table
    if network.origin is not None and is_share(budgets[LATENCY]):
      raise InputError(
        f"budget {budgets[LATENCY]} for latency is a share, but this network was cut from another "
        "one, whose latency is not known: give a time such as 5ms, or give the first network's "
        "table to the deployment, which is latency_table.json in the workdir of its run"
      )
    if progress:
      print("measuring what the layers cost at reduced widths", file=sys.stderr)
    return measure_latency(graph, network.eval_fn, network.variables, x, deployment.batch)

  return dataclasses.replace(deployment, latency_table=from_first(make))


def keep_table(folder: str, deployment: Deployment) -> None:
  """Writes the table of a run to its workdir, from which `with_table` takes it again."""
  path = os.path.join(folder, _TABLE)
  if deployment.latency_table is not None and is_first() and not os.path.exists(path):
    write_latency_table(path, deployment.latency_table)


def measured_latencies(
  constraints: Constraints,
  network: Network,
  masks: Mapping[str, np.ndarray],
  x: Any,
  folder: str | None,
) -> Latencies:
  """Times the compact networks of all masks in turn, if latency is constrained.

  Nothing is timed without a budget for latency, because every network has to be compiled for it.

  Args:
    constraints: the budgets, and the batch of the deployment; networks are timed at it and at 1.
    network: the dense network.
    masks: {method: bool `[N]`}; ratios are those to the first one.
    x: an example `[1, ...]`.
    folder: the run's workdir, in which the times are kept; None if there is none.

  Returns:
    What each network takes on the device at hand; empty if latency is not constrained.
  """
  if LATENCY not in constraints.names:
    return {}
  graph = constraints.graph

  def make():
    path = None if folder is None else os.path.join(folder, _MEASURED)
    if path is not None and os.path.exists(path):
      return read_json(path)
    found: dict[str, dict[str, list[float]]] = {method: {} for method in masks}
    for batch in sorted({1, constraints.deployment.batch}):
      timings = time_masks(graph, network.eval_fn, network.variables, masks, x, batch)
      for method, timing in timings.items():
        found[method][str(batch)] = list(timing)
    if path is not None:
      write_json(path, found)
    return found

  return {
    method: {batch: Timing(*values) for batch, values in of_method.items()}
    for method, of_method in from_first(make).items()
  }
