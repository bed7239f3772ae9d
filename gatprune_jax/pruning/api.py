"""One call: `prune(network, data, budgets)`."""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels import leaf_paths, make_constraints, trace
from gatprune_jax.criteria import check_saliency
from gatprune_jax.data import Dataset, Split
from gatprune_jax.errors import InputError
from gatprune_jax.networks import CLASSIFICATION, Network, Task, check_network, check_task
from gatprune_jax.pruning.pipeline import Plan, prune_problem
from gatprune_jax.pruning.pruned import Pruned
from gatprune_jax.pruning.space import describe_space
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.checkpointer import CheckpointConfig
from gatprune_jax.runs.logger import ProgressLogger, Run, RunLogger
from gatprune_jax.runtime.processes import is_first
from gatprune_jax.search import DEFAULT_CRITERIA, SearchConfig, check_search, make_problem
from gatprune_jax.training import Recipe, steps_per_epoch

_NAME = "gatprune_jax.prune"  # of such runs in a workdir's config.json


def prune(
  network: Network,
  data: Dataset,
  budgets: Mapping[str, float],
  *,
  task: Task = CLASSIFICATION,
  search: SearchConfig | None = None,
  finetune: Recipe | None = None,
  criteria: Sequence[str] = DEFAULT_CRITERIA,
  seed: int = 0,
  keep: str | Sequence[str] = (),
  freeze: str | Sequence[str] = (),
  only: str | Sequence[str] = (),
  side_by_side: bool = True,
  workdir: str | os.PathLike | None = None,
  checkpoints: CheckpointConfig | None = None,
  progress: bool = True,
) -> Pruned:
  """Removes channels from a trained network, within budgets, and fine-tunes what is left.

  The agent and every classical pruner are brought to the same budgets and fine-tuned alike. The
  network that is returned is the agent's, chosen by the select part; the test part only reports.
  All devices that JAX has are used. On a CPU it has one, unless
  `gatprune_jax.runtime.cores.make_devices` was called first, which makes each core a device, as the
  mains of `experiments` do.

  Args:
    network: the trained network; it is not changed.
    data: examples in four parts, see `gatprune_jax.data.arrays`.
    budgets: {resource: largest share of the dense network's cost}; resources are the keys of
      `gatprune_jax.channels.RESOURCES`.
    task: the network's loss and score; labels of classes unless given.
    search: of the agent; None: the defaults.
    finetune: of all masks; None: the defaults.
    criteria: saliency scores: classical pruners, and features of the agent.
    seed: of everything random.
    keep: as in `trace`.
    freeze: as in `trace`.
    only: as in `trace`.
    side_by_side: whether masks are fine-tuned in one step, compiled once, or one after the other.
    workdir: where the state is saved as it goes, with `metrics.jsonl` and a copy of the result. The
      same call on the same workdir goes on from there, or reads the finished result back. None:
      nothing is written.
    checkpoints: how often the state is saved; None: the defaults.
    progress: whether standard error shows what there is to search, and progress lines.

  Returns:
    The small network, its costs, and the table of all methods.

  Raises:
    InputError: where the network, data, task, budgets and settings are wrong, or do not fit each
      other; nothing was done then.
    Diverged: where training or search are not finite, again and again.
  """
  _check_types(network, data, budgets, task)
  plan = Plan(search or SearchConfig(), finetune or Recipe(), side_by_side, seed)
  example = jnp.asarray(data.train.x[:1])
  graph = trace(network.eval_fn, network.variables, example, keep=keep, freeze=freeze, only=only)
  constraints = make_constraints(graph, budgets, plan.search.keep_floor, plan.search.allow_empty)
  _check_fit(network, data, task, plan, criteria)
  if progress and is_first():
    print(describe_space(constraints), file=sys.stderr)
  with contextlib.ExitStack() as stack:
    logger, proposals_path = ProgressLogger(progress), None
    if workdir is not None:
      path = os.path.abspath(os.fspath(workdir))
      patterns = {"keep": keep, "freeze": freeze, "only": only}
      config = _config(network, data, budgets, task, plan, criteria, patterns)
      status = runs.inspect(path, _NAME, config)
      stack.enter_context(runs.claim(path, _NAME, config))
      run = Run(path, config, should_stop=lambda step: False)
      logger = RunLogger(run, checkpoints or CheckpointConfig(), path, progress)
      proposals_path = os.path.join(path, "proposals.npz")
    problem = make_problem(
      network, constraints, data, task=task, config=plan.search, criteria=criteria, seed=seed
    )
    pruned = prune_problem(problem, data, plan, logger, proposals_path)
    if workdir is not None and status is not runs.Status.FINISHED:
      rows = [row._asdict() for row in pruned.rows]
      runs.write_result(path, {"methods": rows, "versions": runs.versions()})
  return pruned


def _check_types(network: Any, data: Any, budgets: Any, task: Any) -> None:
  """Refuses arguments of other kinds, and says what makes the right ones."""
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
  """Refuses what does not fit each other, before anything is computed or written."""
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


def _config(
  network: Network,
  data: Dataset,
  budgets: Mapping[str, float],
  task: Task,
  plan: Plan,
  criteria: Sequence[str],
  patterns: dict[str, Any],
) -> dict[str, Any]:
  """What makes a run this run, of JSON types; arrays by their checksums."""
  parts = {name: getattr(data, name) for name in ("train", "reward", "select", "test")}
  return {
    "budgets": {name: float(limit) for name, limit in budgets.items()},
    "task": task.metric,
    "plan": dataclasses.asdict(plan),
    "criteria": list(criteria),
    **{name: [told] if isinstance(told, str) else list(told) for name, told in patterns.items()},
    "network": _checksum(network.variables),
    "data": {name: _checksum_of_split(split) for name, split in parts.items()},
  }


def _checksum_of_split(split: Split) -> str:
  """Of photographs, which are read as they are needed, number and targets alone."""
  lazy = not isinstance(split.x, np.ndarray)
  return _checksum((np.array(split.x.shape) if lazy else split.x, split.y))


def _checksum(tree: Any) -> str:
  """SHA-256 of paths, types, shapes and values."""
  digest = hashlib.sha256()
  for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
    array = np.ascontiguousarray(leaf)
    digest.update(f"{path} {array.dtype} {array.shape}".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
