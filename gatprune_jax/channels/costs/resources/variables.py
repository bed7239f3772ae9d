"""Sums over the arrays of a masked network's variables."""

from collections.abc import Callable

import numpy as np

from gatprune_jax.channels.costs.resources.products import SumOfProducts, sum_of_products
from gatprune_jax.channels.graph import FROZEN, ChannelGraph, Leaf


def sum_over_variables(
  graph: ChannelGraph, weight_of: Callable[[Leaf], int], unit: str
) -> SumOfProducts:
  """Returns the resource sum_v weight_v * product over axes of the number of kept elements.

  Args:
    graph: the network's channels, and the arrays v of its variables.
    weight_of: returns what one element of an array counts; arrays that count 0 are left out.
    unit: name of the counted unit, in the plural.
  """
  terms = []
  for leaf in graph.leaves:
    if weight := weight_of(leaf):
      cut = [ids for ids in leaf.axes if (ids != FROZEN).any()]
      fixed = [len(ids) for ids in leaf.axes if not (ids != FROZEN).any()]
      terms.append((weight * float(np.prod(fixed, dtype=np.float64)), cut))
  return sum_of_products(graph.num_channels, terms, unit)
