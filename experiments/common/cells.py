"""Cells of an experiment: a network of one seed at one budget, measured once and kept in files."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
from typing import Any, NamedTuple

from experiments.common import dense
from experiments.common.preparing import Setup, problem_of, set_up
from experiments.common.settings import Settings
from gatprune_jax.data import Dataset
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import Run, RunLogger
from gatprune_jax.runtime.processes import from_first, is_first
from gatprune_jax.search import PruningProblem


class Plan(NamedTuple):
  """A cell before its dense network is trained."""

  settings: Settings  # of the experiment, with the cell's seed
  budget: float  # largest share of the dense network's MACs
  prepared: Setup


class Cell(NamedTuple):
  """A cell with its trained network."""

  settings: Settings
  budget: float
  data: Dataset
  problem: PruningProblem
  logger: RunLogger
  place: str  # directory of the files that are kept

  def kept(self, name: str, make: Callable[[], Any]) -> Any:
    """Returns what the file of that name holds; if it is missing, it is written first.

    Args:
      name: name of the file, without its ending.
      make: returns the content, of JSON types.
    """
    path = os.path.join(self.place, f"{name}.json")
    if not from_first(lambda: os.path.exists(path)):
      content = make()
      if is_first():
        os.makedirs(self.place, exist_ok=True)
      runs.write_json(path, content)
    return from_first(lambda: runs.read_json(path))


def plan_cells(
  settings: Settings,
  seeds: Sequence[int],
  budgets: Sequence[float],
  others: Mapping[str, float | str] | None = None,
) -> list[Plan]:
  """Plans the cell of every seed and budget; writes nothing.

  Args:
    settings: settings of the experiment.
    seeds: seeds of the cells.
    budgets: largest shares of the dense network's MACs.
    others: largest costs in other resources, which hold beside each budget; None: there are none.

  Raises:
    InputError: if the settings do not fit the data, or a budget cannot be reached.
  """
  plans = []
  for seed in seeds:
    plan = dataclasses.replace(settings, seed=seed)
    limits = [{"macs": budget, **(others or {})} for budget in budgets]
    plans += [Plan(plan, each["macs"], set_up(plan, each)) for each in limits]
  return plans


def measure_cells(
  name: str, plans: Sequence[Plan], run: Run, measure: Callable[[Cell], dict[str, Any]]
) -> list[dict[str, Any]]:
  """Measures every cell, and writes all that was measured to the run's result.

  Args:
    name: name of the experiment in the workdir.
    plans: the cells, from `plan_cells`.
    run: the workdir, the config, and whether the process was asked to stop.
    measure: returns what it measures of a cell, of JSON types.
  """
  with runs.claim(run.workdir, name, run.config):
    measured = [measure(_train(plan, run)) for plan in plans]
    runs.write_result(run.workdir, {"cells": measured, "versions": runs.versions()})
  return measured


def _train(plan: Plan, run: Run) -> Cell:
  """Trains the dense network of a cell, or restores it, and makes the pruning problem."""
  settings, budget, prepared = plan
  seed = f"seed{settings.seed}"
  logger = RunLogger(run, settings.checkpoints, os.path.join(run.workdir, seed))
  variables = dense.train_dense(settings, prepared.dense, prepared.data, logger)
  problem = problem_of(settings, prepared, variables)
  place = os.path.join(run.workdir, "cells", f"{seed}-macs{budget}")
  return Cell(settings, budget, prepared.data, problem, logger, place)
