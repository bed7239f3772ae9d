"""Tables for users: a network's channels, the methods of a run, several runs, and benchmarks."""

from collections.abc import Mapping, Sequence
import operator
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from gatprune_jax.channels import RESOURCES, ChannelGraph, Deployment
from gatprune_jax.errors import InputError


class Row(NamedTuple):
  """One method's network; scores are means over examples, and accuracies are shares in [0, 1]."""

  method: str
  macs: int  # multiply-adds per example
  params: int
  macs_ratio: float  # share of the dense network's MACs
  params_ratio: float  # share of the dense network's parameters
  select_before: float  # select split, before any gradient step: compensated, recalibrated
  select_after: float  # select split, after fine-tuning
  test_before: float  # test split, as select_before
  test_after: float  # test split, after fine-tuning
  # {other resource that is constrained: share of the dense network's cost}
  others: Mapping[str, float] = {}
  # {number of examples in a forward pass: the fields of `gatprune_jax.channels.Timing`}
  latency: Mapping[str, Sequence[float]] = {}


# {resource in the description of a network: head of its column}
_DESCRIBED = {
  "macs": "MACs", "params": "params", "weight_bytes": "weights", "activation_bytes": "memory"
}  # fmt: skip
_SCORES = ("select_before", "select_after", "test_before", "test_after")
_HEADERS = (
  "method", "MACs", "params", "MACs ratio", "params ratio", "select before", "select after",
  "test before", "test after",
)  # fmt: skip


def comparison(rows: Sequence[Row], metric: str = "accuracy") -> str:
  """Returns the rows as a markdown table; accuracies are in percent, other scores as they are."""
  return markdown_table(*comparison_cells(rows, metric))


def shown_score(score: float, metric: str) -> str:
  """Returns a mean score in words: accuracies in percent, other scores as they are."""
  return f"{100 * score:.1f}" if metric == "accuracy" else f"{score:.4g}"


def comparison_cells(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
  """Returns the headers and the cells of the table that `comparison` shows."""
  others, batches = list(rows[0].others), list(rows[0].latency)
  body = [
    [
      row.method,
      f"{row.macs:,}",
      f"{row.params:,}",
      f"{row.macs_ratio:.4f}",
      f"{row.params_ratio:.4f}",
      *(f"{row.others[name]:.4f}" for name in others),
      *(cell for batch in batches for cell in _timing_cells(row.latency[batch])),
      *(shown_score(getattr(row, name), metric) for name in _SCORES),
    ]
    for row in rows
  ]
  timed = [head for n in batches for head in (f"ms, batch {n}", f"of dense, batch {n}")]
  return [*_HEADERS[:5], *(f"{name} ratio" for name in others), *timed, *_HEADERS[5:]], body


def _timing_cells(timing: Sequence[float]) -> tuple[str, str]:
  """Returns a time in milliseconds, and its ratio to the dense one, each with its spread."""
  seconds, spread, ratio, ratio_spread = timing
  return f"{1e3 * seconds:.3g} ± {1e3 * spread:.1g}", f"{ratio:.3f} ± {ratio_spread:.3f}"


def summary(runs: Sequence[Sequence[Row]]) -> str:
  """Returns mean and sample standard deviation of every method over runs, as a markdown table.

  Args:
    runs: the rows of two or more runs, which have the same methods in the same order.

  Raises:
    InputError: where there is only one run, or the runs do not have the same methods or the same
      constrained resources.
  """
  methods, others = [row.method for row in runs[0]], list(runs[0][0].others)
  if len(runs) < 2 or any([row.method for row in rows] != methods for rows in runs):
    raise InputError(f"a summary needs two or more runs of the same methods, got {len(runs)}")
  if any(list(row.others) != others for rows in runs for row in rows):
    raise InputError("a summary needs runs that constrain the same resources")
  ratios = np.array(
    [
      [(row.macs_ratio, row.params_ratio, *(row.others[name] for name in others)) for row in rows]
      for rows in runs
    ]
  )  # [runs, methods, resources]
  scores = np.array([[[getattr(row, name) for name in _SCORES] for row in rows] for rows in runs])
  shown = lambda values, form: [
    f"{mean:{form}} ± {deviation:{form}}"
    for mean, deviation in zip(values.mean(0), values.std(0, ddof=1), strict=True)
  ]
  body = [
    [method, *shown(ratios[:, place], ".4f"), *shown(100 * scores[:, place], ".1f")]
    for place, method in enumerate(methods)
  ]
  headers = [_HEADERS[0], *_HEADERS[3:5], *(f"{name} ratio" for name in others), *_HEADERS[5:]]
  return markdown_table(headers, body)


class CompareRow(NamedTuple):
  """One method on one seed's network at one budget."""

  method: str
  budget: float  # largest share of the dense network's MACs
  seed: int
  macs_ratio: float
  params_ratio: float
  accuracy_before_finetune: float  # select split, with the best mask by the method's own score
  select_accuracy: float  # after fine-tuning, with the mask that is best on the select split
  test_accuracy: float  # after fine-tuning, with the same mask
  evaluations: int  # number of masks that the method scored
  seconds: float  # time that the method took
  # For each group, the share of its channels in the best mask by the method's own score.
  keep_ratios: Sequence[float]
  level: str = "as it is"  # what happened to the weights before a mask was scored
  epochs: int = 0  # epochs of the fine-tuning
  # Epochs of fine-tuning that cost as much as the search and the fine-tuning of further masks.
  cost: float = 0.0
  # {constrained resource: share of the dense network's cost}
  costs: Mapping[str, float] = {}


def comparison_over_seeds(rows: Sequence[CompareRow], finetuned: bool) -> str:
  """Returns mean ± sample standard deviation over seeds, in percent, as markdown tables.

  "masks" counts scored masks, and "cost, epochs" tells what scoring and the fine-tuning of further
  masks cost beyond the fine-tuning itself, in epochs of fine-tuning.

  The deviation of a single seed is shown as 0. There is one table for each budget. Where there are
  several budgets, a last table shows each seed's mean over them, of the methods that have a row at
  every budget.

  Args:
    rows: one row for every method, seed and budget.
    finetuned: whether the masks were fine-tuned; if not, the accuracies of the rows are those
      before.
  """
  budgets = sorted({row.budget for row in rows}, reverse=True)
  levels = " and ".join(dict.fromkeys(row.level for row in rows))
  lengths = " and ".join(str(n) for n in sorted({row.epochs for row in rows if row.epochs}))
  told = f"masks scored: {levels}" + (f"; epochs of fine-tuning: {lengths}" if lengths else "")
  tables = [
    f"At most {budget} of the MACs ({told}):\n\n"
    + markdown_table(*methods_cells([row for row in rows if row.budget == budget], finetuned))
    for budget in budgets
  ]
  if len(budgets) > 1:
    at = lambda row: {other.budget for other in rows if other.method == row.method}
    everywhere = [row for row in rows if len(at(row)) == len(budgets)]
    mean = markdown_table(*methods_cells(everywhere, finetuned))
    tables.append(f"Mean over the budgets:\n\n{mean}")
  return "\n\n".join(tables)


def methods_cells(rows: Sequence[CompareRow], finetuned: bool) -> tuple[list[str], list[list[str]]]:
  """Returns the headers and cells of a table with one line per method.

  A line shows the mean over seeds, of which each is the mean of the method's rows.

  Args:
    rows: the rows of one budget, or of several.
    finetuned: see `comparison_over_seeds`.
  """
  accuracies = {"before, select": "accuracy_before_finetune"}
  if finetuned:
    accuracies |= {"after, select": "select_accuracy", "after, test": "test_accuracy"}
  else:
    accuracies |= {"before, test": "test_accuracy"}
  seeds, limited = sorted({row.seed for row in rows}), list(rows[0].costs)
  body = []
  for method in dict.fromkeys(row.method for row in rows):

    def means(value_of, method=method):
      values = [
        [value_of(row) for row in rows if (row.method, row.seed) == (method, seed)]
        for seed in seeds
      ]
      return np.array([np.mean(of_seed) for of_seed in values])

    column = lambda field, means=means: means(operator.attrgetter(field))
    ratios = [means(lambda of, name=name: of.costs[name]) for name in limited]
    spread = lambda values: values.std(ddof=1) if len(values) > 1 else 0.0
    shown = [100 * column(field) for field in accuracies.values()]
    body.append(
      [method, str(len(seeds))]
      + [f"{values.mean():.4f}" for values in ratios]
      + [f"{values.mean():.1f} ± {spread(values):.1f}" for values in shown]
      + [f"{column(field).mean():.0f}" for field in ("evaluations", "cost", "seconds")]
    )
  headers = ["method", "seeds", *(f"{name} ratio" for name in limited), *accuracies]
  return [*headers, "masks", "cost, epochs", "seconds"], body


def benchmark_table(rows: Sequence[Any]) -> str:
  """Returns rows of `experiments.bench` as a markdown table; a ratio above 1 is a speed-up."""
  body = [
    [
      row.name,
      f"{row.seconds:.4g} s",
      row.reference,
      f"{row.reference_seconds:.4g} s",
      f"{row.ratio:.2f}",
      row.note,
    ]
    for row in rows
  ]
  return markdown_table(("measured", "time", "against", "its time", "ratio", "note"), body)


def describe(graph: ChannelGraph) -> str:
  """Returns two tables: what can be removed from a network, and what cannot be, and why.

  Below them it names sums over channels that a constant divides which no mask changes.

  A group's share of a resource is what the network loses with the whole group. A layer's cost
  counts for the group that it reads and for the group that it writes, so the shares of all groups
  need not add up to one. Those of the activations, "memory", are of the peak at one example.
  "bypass" says whether `compact` may remove the whole group with `allow_empty=True`.
  """
  dense, body = np.ones(graph.num_channels), []
  resources = [RESOURCES[name](graph, Deployment()) for name in _DESCRIBED]
  sets = [group.channels for group in graph.groups]
  whole = [resource.cost(dense) for resource in resources]
  lost = [1 - r.without_each(sets) / cost for r, cost in zip(resources, whole, strict=True)]
  for group, *of_group in zip(graph.groups, *lost, strict=True):
    shares = [f"{100 * share:.1f} %" for share in of_group]
    members = "\n".join(f"{path} axis {axis}" for path, axis in group.members)
    bypass = "yes" if group.has_bypass else "no"
    body.append([group.name, len(group.channels), *shares, bypass, members])
  headers = ("group", "width", *_DESCRIBED.values(), "bypass", "members")
  align = ("left", "right", *("right" for _ in _DESCRIBED), "left", "left")
  groups = tabulate(body, headers, "simple", colalign=align, disable_numparse=True)
  frozen = tabulate(
    [(path, why.replace(", axis", "\naxis")) for path, why in graph.frozen.items()],
    ("never cut", "because"),
    "simple",
  )
  return (
    f"{graph.num_channels} channels in {len(graph.groups)} groups; "
    f"{whole[0]:,.0f} MACs an example, {whole[1]:,.0f} parameters, {whole[2]:,.0f} bytes of "
    f"weights, at most {whole[3]:,.0f} bytes of activations at once\n\n"
    f"{groups}\n\n{frozen}{_fixed(graph)}"
  )


def _fixed(graph: ChannelGraph) -> str:
  """Returns a paragraph on the statistics that keep a number of the dense network, if any do."""
  if not graph.fixed_divisors:
    return ""
  said = [
    f"{name} (by {', '.join(f'{number:g}' for number in numbers)})"
    for name, numbers in graph.fixed_divisors.items()
  ]
  return (
    "\n\nA mean over channels divides by the number of those that are kept. Sums over channels of "
    f"these groups are divided by a number that stays as it is: {', '.join(said)}."
  )


def markdown_table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
  """Returns a markdown table; the first column is aligned left, the others right."""
  align = ["left"] + ["right"] * (len(headers) - 1)
  return tabulate(body, headers, "github", colalign=align, disable_numparse=True)
