"""What every resource is: the cost of a network as a function of its mask."""

from typing import Any, Protocol

import numpy as np


class Resource(Protocol):
  """The cost of a network as a function of its mask `[N]`, 1 = keep.

  A resource is a pytree, so that it can be an argument of a jitted function. Adding a channel to
  the mask must never lower the cost, because `Constraints.top_up` and the searches for feasible
  masks rely on that.

  Attributes:
    unit: name of the counted unit, in the plural.
  """

  unit: str

  def cost(self, mask: Any) -> Any:
    """Returns the cost under one mask `[N]`, a scalar in `unit`.

    If JAX is tracing the mask, the result is a float32 scalar that is differentiable in the mask,
    whose entries may be any numbers in [0, 1]. For any other mask the cost is counted exactly in
    float64.

    Raises:
      InputError: the mask has another shape.
    """

  def gradient(self, mask: Any) -> Any:
    """Returns the derivative of `cost` with respect to each entry of the mask, float32 `[N]`."""

  def with_one_more(self, mask: np.ndarray) -> np.ndarray:
    """Returns the exact cost of a concrete mask plus channel n, for each n, float64 `[N]`.

    For a channel that the mask already keeps, this is the cost of the mask itself.

    Raises:
      InputError: the mask has another shape.
    """
