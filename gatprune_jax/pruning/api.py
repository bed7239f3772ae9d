"""The public entry point, `prune(network, data, budgets)`.

It checks the arguments, runs the search and the fine-tuning, and keeps the workdir if one is given.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax import reporting
from gatprune_jax.channels import Deployment, leaf_paths, make_constraints, trace
from gatprune_jax.criteria import check_saliency
from gatprune_jax.data import Dataset, Split
from gatprune_jax.errors import InputError
from gatprune_jax.networks import CLASSIFICATION, Network, Task, check_network, check_task
from gatprune_jax.pruning.latency import keep_table, with_table
from gatprune_jax.pruning.pipeline import Plan, prune_problem
from gatprune_jax.pruning.pruned import Pruned
from gatprune_jax.pruning.rounds import check_rounds, first_costs, prune_in_rounds
from gatprune_jax.pruning.space import describe_space
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.runs.logger import ProgressLogger, Run, RunLogger
from gatprune_jax.runtime.compilation_cache import keep_programs
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.search import DEFAULT_CRITERIA, SearchConfig, check_search, make_problem
from gatprune_jax.training import Recipe, steps_per_epoch

_NAME = "gatprune_jax.prune"  # the experiment name that a workdir's config.json holds


def prune(
  network: Network,
  data: Dataset,
  budgets: Mapping[str, float | str],
  *,
  deployment: Deployment | None = None,
  task: Task = CLASSIFICATION,
  search: SearchConfig | None = None,
  finetune: Recipe | None = None,
  criteria: Sequence[str] = DEFAULT_CRITERIA,
  seed: int = 0,
  keep: str | Sequence[str] = (),
  freeze: str | Sequence[str] = (),
  only: str | Sequence[str] = (),
  side_by_side: bool = True,
  rounds: int = 1,
  workdir: str | os.PathLike | None = None,
  checkpoints: CheckpointConfig | None = None,
  progress: bool = True,
) -> Pruned:
  """Removes channels from a trained network, within budgets, and fine-tunes the remaining network.

  The masks of the agent and of every classical pruner keep to the same budgets and are fine-tuned
  with the same recipe. The returned network has the agent's mask that scores best on the select
  part after fine-tuning; the test part is only reported and chooses nothing.

  All devices of JAX are used. On a CPU, JAX has a single device unless
  `gatprune_jax.runtime.cores.make_devices`, which makes each core a device, was called first, as
  the programs in `experiments` do. Compiled programs are kept in `gatprune_jax` in the user's
  directory of caches, unless JAX is configured otherwise; see
  `gatprune_jax.runtime.compilation_cache`.

  Args:
    network: the trained network; it is not changed.
    data: examples in four parts, see `gatprune_jax.data.arrays`.
    budgets: {resource: largest share of the dense network's cost, or a cost with its unit, such as
      "20M", "500KB" or "5ms"}; resources are the keys of `gatprune_jax.channels.RESOURCES`. Where
      the network itself was cut from another one (`network.origin`), shares are of the first
      network's cost.
    deployment: how the pruned network is going to be run, which activation_bytes and latency depend
      on; None for the defaults. A budget for latency needs a table of what layers cost; without one
      the table is measured first, on this device, and kept in the workdir.
    task: the network's loss and score; classification unless given.
    search: settings of the agent's search; None for the defaults.
    finetune: recipe with which all masks are fine-tuned; None for the defaults.
    criteria: names of saliency criteria. Each makes classical pruners, and each except "random" is
      a feature of the agent.
    seed: seed of all random numbers.
    keep: patterns of layers whose channels are never pruned, see `trace`.
    freeze: patterns of variables that are never cut, see `trace`.
    only: patterns of the only layers whose channels are pruned, see `trace`.
    side_by_side: True fine-tunes all masks together in a step that is compiled once; False
      fine-tunes them one after the other.
    rounds: number of rounds. Each prunes an equal share of the way in the logarithm of the costs
      and fine-tunes by the whole recipe, and the next one starts from its network. The table
      compares the methods in the last round.
    workdir: directory in which the state is saved during the run, with `metrics.jsonl`, a copy of
      the result, and at the end `report.html`, which shows it; of several rounds each has a
      directory of its own in it. The same call with the same workdir continues from the saved
      state, or returns the outcome of a finished run without searching or training again. None
      writes nothing.
    checkpoints: how often the state is saved; None for the defaults.
    progress: whether the size of the search space and progress lines are printed to standard error.

  Returns:
    The small network, its costs, and the table of all methods.

  Raises:
    InputError: if the network, data, task, budgets or settings are wrong, or do not fit each other;
      most of these errors are found before anything is written.
    Diverged: if the search or a training repeatedly gives values that are not finite.
  """
  _check_types(network, data, budgets, task)
  plan = Plan(search or SearchConfig(), finetune or Recipe(), side_by_side, seed)
  check_rounds(rounds, plan.search.allow_empty)
  example = jnp.asarray(data.train.x[:1])
  graph = trace(network.eval_fn, network.variables, example, keep=keep, freeze=freeze, only=only)
  path = None if workdir is None else os.path.abspath(os.fspath(workdir))
  given = deployment or Deployment()
  deployment = with_table(given, budgets, network, graph, example, path, progress)
  first = first_costs(network, graph, rounds, deployment)
  constraints = make_constraints(
    graph, budgets, plan.search.keep_floor, plan.search.allow_empty, deployment, first
  )
  _check_fit(network, data, task, plan, criteria)
  if rounds > 1:
    if path is not None:
      os.makedirs(path, exist_ok=True)
      keep_table(path, deployment)  # for all rounds

    def prune_once(number: int, network: Network, limits: dict[str, float]) -> Pruned:
      folder = None if workdir is None else os.path.join(os.fspath(workdir), f"round_{number}")
      return prune(
        network, data, limits, task=task, search=search, finetune=finetune, criteria=criteria,
        seed=seed, keep=keep, freeze=freeze, only=only, side_by_side=side_by_side, workdir=folder,
        checkpoints=checkpoints, progress=progress, deployment=deployment,
      )  # fmt: skip

    return prune_in_rounds(network, constraints, rounds, prune_once, path, progress)
  if progress and is_first():
    print(describe_space(constraints), file=sys.stderr)
  keep_programs()
  with contextlib.ExitStack() as stack:
    logger = ProgressLogger(progress)
    if path is not None:
      patterns = {"keep": keep, "freeze": freeze, "only": only}
      goal = {"budgets": _plain(budgets), "deployment": _told(given)}
      config = goal | _config(network, data, task, plan, criteria, patterns)
      status = runs.inspect(path, _NAME, config)
      stack.enter_context(runs.claim(path, _NAME, config))
      run = Run(path, config, should_stop=lambda step: False)
      logger = RunLogger(run, checkpoints or CheckpointConfig(), path, progress)
      keep_table(path, deployment)
    problem = make_problem(
      network, constraints, data, task=task, config=plan.search, criteria=criteria, seed=seed
    )
    pruned = prune_problem(problem, data, plan, logger, path)
    if path is not None and status is runs.Status.FINISHED:
      reporting.complete_report(path, default_config())
    elif path is not None:
      rows = [row._asdict() for row in pruned.rows]
      reporting.write_explanation(os.path.join(path, reporting.EXPLANATION), pruned.explanation)
      resources = constraints.statement(pruned.mask)
      runs.write_result(
        path, {"methods": rows, "resources": resources, "versions": runs.versions()}
      )
      reporting.write_report(path, default_config())
  return pruned


def default_config() -> dict[str, Any]:
  """Returns the settings of `prune` at their defaults, of JSON types, as in `config.json`.

  Checksums, which `config.json` has as well, are no settings. Budgets have no defaults.
  """
  defaults = {
    "budgets": {},
    "deployment": _told(Deployment()),
    "task": CLASSIFICATION.metric,
    "plan": dataclasses.asdict(Plan()),
    "criteria": DEFAULT_CRITERIA,
    **{name: [] for name in ("keep", "freeze", "only")},
  }
  return json.loads(json.dumps(defaults))


def _check_types(network: Any, data: Any, budgets: Any, task: Any) -> None:
  """Raises InputError for an argument of a wrong type; the message says how to make a right one."""
  for name, value, kind, how in (
    ("network", network, Network, "make one by from_linen, from_nnx, from_equinox or Network"),
    ("data", data, Dataset, "make it by gatprune_jax.data.arrays(x, y)"),
    ("budgets", budgets, Mapping, "give a dict such as {'macs': 0.5}"),
    ("task", task, Task, "make one by Task(loss=..., score=...)"),
  ):
    if not isinstance(value, kind):
      raise InputError(f"{name} is of type {type(value).__name__}: {how}")


def _check_fit(
  network: Network, data: Dataset, task: Task, plan: Plan, criteria: Sequence[str]
) -> None:
  """Raises InputError if the arguments do not fit each other; called before anything is written."""
  check_saliency(criteria)
  check_search(plan.search, data, plan.seed)
  steps_per_epoch(plan.finetune, data.train)
  task.training_loss(plan.finetune.label_smoothing)
  few = data.train.first(64)
  check_network(network, jnp.asarray(few.x))
  apply = jax.jit(network.eval_fn)
  for part in (data.train.first(256), data.reward, data.select):
    for piece in part.pieces():
      check_task(task, apply(network.variables, jnp.asarray(piece.x)), piece.y)


def _plain(budgets: Mapping[str, float | str]) -> dict[str, float | str]:
  """Returns the budgets as JSON types."""
  return {
    name: limit if isinstance(limit, str) else float(limit) for name, limit in budgets.items()
  }


def _told(deployment: Deployment) -> dict[str, Any]:
  """Returns the deployment as JSON types; a checksum stands for a table."""
  table = deployment.latency_table
  return {"batch": deployment.batch, "latency_table": None if table is None else table.digest()}


def _config(
  network: Network,
  data: Dataset,
  task: Task,
  plan: Plan,
  criteria: Sequence[str],
  patterns: dict[str, Any],
) -> dict[str, Any]:
  """Returns what identifies a run, as JSON types; arrays are represented by their checksums."""
  parts = {name: getattr(data, name) for name in ("train", "reward", "select", "test")}
  return {
    "task": task.metric,
    "plan": dataclasses.asdict(plan),
    "criteria": list(criteria),
    **{name: [told] if isinstance(told, str) else list(told) for name, told in patterns.items()},
    "network": _checksum(network.variables),
    "data": {name: _checksum_of_split(split) for name, split in parts.items()},
  }


def _checksum_of_split(split: Split) -> str:
  """Returns the checksum of a split's inputs and targets.

  Photographs are read from files only when they are needed, so the shape stands for their pixels.
  """
  lazy = not isinstance(split.x, np.ndarray)
  return _checksum((np.array(split.x.shape) if lazy else split.x, split.y))


def _checksum(tree: Any) -> str:
  """Returns the SHA-256 of the paths, dtypes, shapes and values of a tree's arrays."""
  digest = hashlib.sha256()
  for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
    array = np.ascontiguousarray(leaf)
    digest.update(f"{path} {array.dtype} {array.shape}".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
