"""What a comparison takes from earlier ones: dense networks and masks, or whole cells.

A cell is one seed at one budget. Its files are in `rows/` of the comparison's workdir, see
`experiments.compare`.
"""

from collections.abc import Sequence
import os
import shutil
from typing import Any

import jax
import numpy as np

from experiments.common import dense
from experiments.common.cells import Plan
from experiments.common.sections import CompareConfig
from experiments.common.settings import Settings
from gatprune_jax import InputError, reporting
from gatprune_jax.pruning import Proposal, load_proposals
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.logger import place_of
from gatprune_jax.runs.report import CompareRow
from gatprune_jax.runtime.processes import from_first
from gatprune_jax.runtime.whole_files import whole_directory, whole_file
from gatprune_jax.search import SEARCHES

EQUAL_COST = "best classical, equal cost"
# Sections of the settings that a comparison shares with the one that it starts from.
_SAME = ("dataset", "images", "image_size", "model", "dense", "criteria", "search")


def path_of_cell(workdir: str, seed: int, budget: float) -> str:
  """Returns the path of a cell's files, without their endings."""
  return os.path.join(workdir, "rows", f"seed{seed}-macs{budget}")


def check(compare: CompareConfig, config: dict[str, Any]) -> None:
  """Checks that the comparisons in `start` and `parts` have what is taken from them.

  Args:
    compare: names them.
    config: the config of this run, of JSON types.

  Raises:
    InputError: see `check_start` and `check_part`.
  """
  if compare.start:
    check_start(compare.start, config)
  for part in compare.parts:
    check_part(part, config)


def check_part(part: str, config: dict[str, Any]) -> None:
  """Checks that another comparison has the same settings.

  Its seeds, budgets and parts may differ, and the directory of its data.

  Args:
    part: its workdir; it need not be finished.
    config: the config of this run, of JSON types.

  Raises:
    InputError: if the workdir holds no comparison, or one of other settings.
  """
  if (was := runs.read_experiment(part)) != "compare":
    raise InputError(f"compare.parts: {part} holds a run of experiments.{was}: give comparisons")
  free = {"seeds": (), "budgets": (), "parts": ()}
  fixed = lambda told: {**told, "data_dir": "", "compare": {**told["compare"], **free}}
  difference = runs.first_difference(fixed(runs.read_config(part)), fixed(config))
  if difference is not None:
    field, there, here = difference
    raise InputError(
      f"compare.parts: in {part} {field} is {there}, here it is {here}: a part may differ in its "
      "seeds, its budgets and the place of its data only"
    )


def check_networks(parts: Sequence[str], workdir: str, plans: Sequence[Plan]) -> None:
  """Checks that all rows of a seed are of one dense network.

  Two machines may train different networks with one seed, because their arithmetic rounds
  differently.

  Args:
    parts: workdirs of other comparisons, from `check_part`.
    workdir: workdir of this comparison.
    plans: the cells of this comparison.

  Raises:
    InputError: if two of the workdirs have different networks of one seed.
  """
  networks = {plan.settings.seed: plan.prepared.dense.network for plan in plans}
  for seed, network in networks.items():
    folders = [os.path.join(path, f"seed{seed}") for path in (workdir, *parts)]
    trained = from_first(lambda folders=folders: list(filter(_has_network, folders)))
    if len(trained) < 2:
      continue
    first, *others = (dense.restore(folder, network) for folder in trained)
    for folder, other in zip(trained[1:], others, strict=True):
      if not jax.tree.all(jax.tree.map(np.array_equal, first, other)):
        raise InputError(
          f"compare.parts: {trained[0]} and {folder} hold different dense networks: all budgets of "
          "a seed must be of one network, so begin the second with the first among its parts"
        )


def _has_network(folder: str) -> bool:
  return os.path.exists(place_of(folder, "dense"))


def take_cell(compare: CompareConfig, workdir: str, seed: int, budget: float) -> None:
  """Copies a cell, and the dense network of its seed, if one of the parts has finished the cell.

  Where network and masks are those of `compare.start`, no part has them. The file of rows, which
  marks a cell as finished, is copied last.

  Args:
    compare: names the parts, which `check` has accepted, and the start.
    workdir: workdir of this comparison, with its directory of rows.
    seed: seed of the cell.
    budget: its budget.
  """
  here = path_of_cell(workdir, seed, budget)
  is_done = lambda path: os.path.exists(f"{path_of_cell(path, seed, budget)}.json")
  part = next(filter(is_done, compare.parts), None)
  if part is None or is_done(workdir):
    return
  there = path_of_cell(part, seed, budget)
  own, other = (os.path.join(path, f"seed{seed}") for path in (workdir, part))
  if not compare.start and not _has_network(own):
    with whole_directory(place_of(own, "dense")) as target:
      shutil.copytree(place_of(other, "dense"), target, dirs_exist_ok=True)
  masks = () if compare.start else ("-masks.npz",)
  for ending in (*masks, f"-{reporting.EXPLANATION}", ".json"):
    with open(there + ending, "rb") as source, whole_file(here + ending) as target:
      shutil.copyfileobj(source, target)


def check_start(start: str, config: dict[str, Any]) -> None:
  """Checks that another comparison has the masks and networks that are to be judged here.

  Args:
    start: its workdir.
    config: the config of this run, of JSON types.

  Raises:
    InputError: if it is not finished, lacks a seed, budget or method, or had other settings of
      data, network, criteria or search.
  """
  runs.read_result(start, "compare")  # raises if the comparison is not finished
  there = runs.read_config(start)
  for section in _SAME:
    if there[section] != config[section]:
      raise InputError(
        f"compare.start {start} had other settings of {section}, {there[section]}, here they are "
        f"{config[section]}: give the same"
      )
  limited = lambda others: {name: limit for name, limit in others.items() if limit is not None}
  before, now = (limited(told["compare"]["others"]) for told in (there, config))
  if before != now:
    raise InputError(
      f"compare.start {start} had the other budgets {before}, here they are {now}: give the same"
    )
  for name in ("seeds", "budgets", "variants", "searches"):
    found = there["compare"][name]
    if missing := [one for one in config["compare"][name] if one not in found]:
      raise InputError(f"compare.start {start} has no {name} {missing}: it has {list(found)}")


def masks_of_start(settings: Settings, budget: float) -> list[Proposal]:
  """Returns the proposals of the methods that are judged, from the comparison in `compare.start`.

  Args:
    settings: settings of the experiment, with the seed.
    budget: largest share of the dense network's MACs.
  """
  start = settings.compare.start
  read = lambda: runs.read_json(os.path.join(start, "compare.json"))
  rows = [CompareRow(**row) for row in from_first(read)]
  agents = [*settings.compare.variants, *SEARCHES, EQUAL_COST]
  scores: dict[str, list[float]] = {}
  for row in rows:
    if row.budget == budget and row.method not in agents:
      scores.setdefault(row.method, []).append(row.select_accuracy)
  ranked = sorted(scores, key=lambda name: -np.mean(scores[name]))
  wanted = [
    *ranked[: settings.compare.classical or None],
    *settings.compare.variants,
    *settings.compare.searches,
  ]
  path = f"{path_of_cell(start, settings.seed, budget)}-masks.npz"
  found = {method.method: method for method in from_first(lambda: load_proposals(path)) or ()}
  if missing := [name for name in wanted if name not in found]:
    raise InputError(f"{path} has no masks of {missing[0]}: run the comparison in {start} again")
  return [found[name] for name in wanted]
