"""What a finished run left in its workdir, as typed records from which the report is made."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import os
from typing import Any

from gatprune_jax.errors import InputError
from gatprune_jax.reporting.explanation import EXPLANATION, Explanation, read_explanation
from gatprune_jax.runs import workdir as runs
from gatprune_jax.runs.report import CompareRow, Row

REPORT = "report.html"  # name of the file in a workdir
# Names of the experiments that have a report.
COMPARE = "compare"
PRUNE = "prune"
API = "gatprune_jax.prune"  # the name of runs of `gatprune_jax.prune`


@dataclasses.dataclass(frozen=True)
class Search:
  """The updates of one search of the agent.

  Attributes:
    label: which search it is, among those of the run; searches with equal labels differ by seed.
    limits: {resource: budget}, in the order in which the updates list costs and multipliers.
    updates: the lines of `metrics.jsonl`, one for each update.
  """

  label: str
  limits: Mapping[str, float]
  updates: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """One network that the agent pruned.

  Attributes:
    label: the budget of the network, in a comparison; "" elsewhere.
    seed: seed of the network.
    explanation: what became of its layers and channels.
  """

  label: str
  seed: int
  explanation: Explanation


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run.

  Attributes:
    path: its workdir.
    experiment: `COMPARE`, `PRUNE` or `API`.
    config: all settings.
    defaults: the settings with all fields at their defaults; fields that have none are missing.
    versions: {name: version} of what the run depended on.
    metric: name of the score of an example.
    agent: name of the agent; in a comparison, its first variant.
    methods: rows of the dense network and of every method; empty for a comparison.
    compared: rows of a comparison; empty for the others.
    searches: the agent's searches; empty where the run left no metrics.
    outcomes: the agent's networks; empty where the run left no explanation.
  """

  path: str
  experiment: str
  config: Mapping[str, Any]
  defaults: Mapping[str, Any]
  versions: Mapping[str, str]
  metric: str
  agent: str
  methods: Sequence[Row]
  compared: Sequence[CompareRow]
  searches: Sequence[Search]
  outcomes: Sequence[Outcome]

  def outcomes_by_label(self) -> dict[str, list[Outcome]]:
    """Returns the agent's networks of each label, in order."""
    found: dict[str, list[Outcome]] = {}
    for outcome in self.outcomes:
      found.setdefault(outcome.label, []).append(outcome)
    return found

  @property
  def finetuned(self) -> bool:
    """Whether the pruned networks were fine-tuned."""
    return self.experiment != COMPARE or self.config["compare"]["finetune"]


def read_run(path: str, defaults: Mapping[str, Any]) -> Run:
  """Reads the workdir of a finished run of `experiments.prune`, `.compare` or `prune`.

  Args:
    path: the workdir.
    defaults: the run's settings with all fields at their defaults, of JSON types.

  Raises:
    InputError: where the directory holds no such run, or a file is damaged.
  """
  experiment = runs.read_experiment(path)
  if experiment not in (COMPARE, PRUNE, API):
    raise InputError(
      f"{path} holds a run of experiments.{experiment}, of which there is no report: give one of "
      "experiments.prune or experiments.compare"
    )
  result = runs.read_result(path, experiment)
  config = runs.read_config(path)
  read = _compare if experiment == COMPARE else _prune
  return Run(
    path=path, experiment=experiment, config=config, defaults=defaults,
    versions=result["versions"], **read(path, config, result),
  )  # fmt: skip


def _prune(path: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
  methods = [Row(**row) for row in result["methods"]]
  if "resources" in result:
    limits = {name: each["limit"] / each["dense"] for name, each in result["resources"].items()}
  else:  # a result that was written before limits could have units: all of them are shares
    limits = {name: limit for name, limit in sorted(config["budgets"].items()) if limit is not None}
  updates = _lines(os.path.join(path, "metrics.jsonl")).get("search")
  found = read_explanation(os.path.join(path, EXPLANATION))
  seed = result["seed"] if "seed" in result else config["plan"]["seed"]
  return {
    "metric": config.get("task", "accuracy"),
    "agent": methods[-1].method,
    "methods": methods,
    "compared": (),
    "searches": [Search("", limits, updates)] if updates else (),
    "outcomes": [Outcome("", seed, found)] if found else (),
  }


def _compare(path: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
  rows = [CompareRow(**row) for row in runs.read_json(os.path.join(path, "compare.json"))]
  agent = next(iter(config["compare"]["variants"]))
  searches, outcomes = [], []
  for seed in config["compare"]["seeds"]:
    lines = _lines(os.path.join(path, f"seed{seed}", "metrics.jsonl"))
    for budget in config["compare"]["budgets"]:
      label = f"{budget:g} of the MACs"
      if updates := lines.get(f"{agent} {budget}"):
        searches.append(Search(label, {"macs": budget}, updates))
      cell = os.path.join(path, "rows", f"seed{seed}-macs{budget}-{EXPLANATION}")
      if found := read_explanation(cell):
        outcomes.append(Outcome(label, seed, found))
  return {
    "metric": "accuracy",
    "agent": agent,
    "methods": (),
    "compared": rows,
    "searches": searches,
    "outcomes": outcomes,
  }


def _lines(path: str) -> dict[str, list[dict[str, Any]]]:
  """Returns the lines of a file of metrics by phase; none where there is no such file.

  Raises:
    InputError: where the file cannot be read, or is damaged.
  """
  phases: dict[str, list[dict[str, Any]]] = {}
  if not os.path.exists(path):
    return phases
  try:
    with open(path) as file:
      for line in file:
        content = json.loads(line)
        phases.setdefault(content["phase"], []).append(content)
  except OSError as error:
    raise InputError(f"{path} cannot be read: {error.strerror}") from error
  except (ValueError, TypeError, KeyError) as error:
    raise InputError(f"{path} is damaged: {error}") from error
  return phases
