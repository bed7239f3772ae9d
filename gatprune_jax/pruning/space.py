"""Describes the search space in words, for users to read before a search begins."""

from collections.abc import Iterator
import math

import numpy as np

from gatprune_jax.channels import RESOURCES, Constraints

_NEAR = 0.02  # share of the way from the smallest reachable cost to the dense network's cost


def describe_space(constraints: Constraints) -> str:
  """Returns a text with the number of groups and masks, and with the costs of every budget.

  For every constrained resource the text gives the dense network's cost, the smallest reachable
  cost and the budget. A sentence warns of a budget that leaves hardly anything to search.
  """
  graph = constraints.graph
  widths = np.array([len(group.channels) for group in graph.groups])
  lines = [
    f"{graph.num_channels} channels in {len(widths)} groups, "
    f"of {widths.min()} to {widths.max()} channels; {_masks_in_words(constraints)}"
  ]
  reachable = constraints.reachable()
  budgets = constraints.budgets
  for name, limit, dense in zip(budgets.names, budgets.limits, budgets.dense, strict=True):
    resource = RESOURCES[name](graph)
    lines.append(
      f"{name}: dense {_number(dense)} {resource.unit}, smallest reachable "
      f"{_number(reachable[name] * dense)} ({reachable[name]:.4f}), budget "
      f"{_number(limit * dense)} ({limit:g})"
    )
  return "\n".join([*lines, *_warnings(constraints)])


def _masks_in_words(constraints: Constraints) -> str:
  """Returns the number of masks that keep every group at or above its floor, as a power of ten."""
  digits = 0.0
  for group, floor in zip(constraints.graph.groups, constraints.floors, strict=True):
    width = len(group.channels)
    allowed = sum(math.comb(width, kept) for kept in range(int(floor), width + 1))
    digits += math.log10(allowed) if allowed < 1e300 else width * math.log10(2)
  return f"about 10^{round(digits)} masks"


def _warnings(constraints: Constraints) -> Iterator[str]:
  """Yields a warning for every budget near the smallest or the dense network, and if all are 1."""
  for name, limit in zip(constraints.names, constraints.limits, strict=True):
    least = constraints.reachable()[name]
    place = (limit - least) / (1 - least) if least < 1 else 1.0
    if place < _NEAR:
      yield (
        f"warning: the budget {limit:g} for {name} is so near the smallest reachable share "
        f"{least:.4f} that there is hardly a choice left: raise it, or lower the keep floor"
      )
    elif limit < 1 and place > 1 - _NEAR:
      yield (
        f"warning: the budget {limit:g} for {name} is so near the dense network that there is "
        "hardly anything to remove: lower it"
      )
  if all(limit == 1 for limit in constraints.limits):
    yield "warning: every budget is 1, which constrains nothing: set one below it"


def _number(value: float) -> str:
  """Formats a number with three digits and a letter for thousands, millions or billions."""
  for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if value >= size:
      return f"{value / size:.3g}{letter}"
  return f"{value:.3g}"
