"""Statistics over channels: which elements a reduction sees, and by what number a mean divides.

A sum, maximum or minimum over channels does not see the channels that are removed. Its result is
what it would be in a network that was built without them. A mean is such a sum, divided by the
number of elements. In a program that number is a constant; where the constant equals the dense
number, it is replaced by the number of elements that are kept. Where it is another, such as n - 1,
it stays.

Layer norm, group norm, RMS norm, global response norm and a softmax over channels consist of these
operations.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.rules.axes import Axes


def _lowest(dtype: Any) -> jax.Array:
  if jnp.issubdtype(dtype, jnp.inexact):
    return jnp.array(-jnp.inf, dtype)
  return jnp.array(False if jnp.issubdtype(dtype, bool) else jnp.iinfo(dtype).min, dtype)


def _highest(dtype: Any) -> jax.Array:
  if jnp.issubdtype(dtype, jnp.inexact):
    return jnp.array(jnp.inf, dtype)
  return jnp.array(True if jnp.issubdtype(dtype, bool) else jnp.iinfo(dtype).max, dtype)


# Primitive -> the element of a dtype that changes no result of it.
NEUTRAL: dict[str, Callable[[Any], Any]] = {
  "reduce_sum": lambda dtype: jnp.zeros((), dtype),
  "reduce_prod": lambda dtype: jnp.ones((), dtype),
  "reduce_max": _lowest,
  "reduce_min": _highest,
  "reduce_and": lambda dtype: ~jnp.zeros((), dtype),
  "reduce_or": lambda dtype: jnp.zeros((), dtype),
  "reduce_xor": lambda dtype: jnp.zeros((), dtype),
}
# Primitives whose result holds the elements of their first operand, moved, copied or converted.
MOVES = """
  broadcast_in_dim convert_element_type copy optimization_barrier reshape squeeze stop_gradient
  transpose
""".split()
_ROUNDING = 1e-6  # largest relative error of a constant 1 / n


class Total(NamedTuple):
  """The elements of a sum."""

  labels: tuple[np.ndarray, ...]  # labels of each labelled axis that was summed over
  others: int  # number of elements of all other axes that were summed over

  def dense(self) -> int:
    """Returns the number of elements if no channel is removed."""
    return self.others * math.prod(len(labels) for labels in self.labels)


class Quotient(NamedTuple):
  """A sum that is divided by a constant."""

  total: Total
  number: float | None  # the constant; None if it is the number of elements, as in a mean


def summed(eqn, inputs: list[Axes], reduced: Sequence[int]) -> Total | None:
  """Returns the elements of which an equation returns the sum, or None if it is no such sum.

  Args:
    eqn: the equation.
    inputs: the labelled axes of its operands.
    reduced: the labelled axes that it reduces.
  """
  if eqn.primitive.name != "reduce_sum" or not reduced:
    return None
  shape = eqn.invars[0].aval.shape
  rest = [shape[axis] for axis in eqn.params["axes"] if axis not in reduced]
  if not all(isinstance(size, int) for size in rest):  # a symbolic batch
    return None
  return Total(tuple(inputs[0][axis] for axis in reduced), math.prod(rest))


def divided(
  eqn, operands: Sequence[tuple[Total | None, Callable[[], np.ndarray | None]]]
) -> Quotient | None:
  """Returns the sum that an equation divides by a constant, or None if it divides none.

  A product with a constant is a division only if the constant is that of a mean.

  Args:
    eqn: the equation.
    operands: for each operand, the elements of which it is the sum, and a function that returns its
      value if that is known.
  """
  if eqn.primitive.name not in ("div", "mul") or operands[0][0] is None:
    return None
  total, value = operands[0][0], operands[1][1]()
  if value is None or np.size(value) == 0:
    return None
  divides = eqn.primitive.name == "div"
  count = total.dense() if divides else 1 / total.dense()
  if np.allclose(value, count, rtol=_ROUNDING, atol=0):
    return Quotient(total, None)
  same = np.all(value == np.ravel(value)[0])
  return Quotient(total, float(np.ravel(value)[0])) if divides and same else None


def with_count(eqn, values: list[Any], count: Any) -> list[Any]:
  """Returns the operands of a mean with another number of elements.

  Args:
    eqn: the division by the number, or the product with its inverse.
    values: the operands: the sum, and the number or its inverse.
    count: the number, a scalar.
  """
  total, old = values
  number = jnp.asarray(count, old.dtype if hasattr(old, "dtype") else None)
  number = number if eqn.primitive.name == "div" else 1 / number
  return [total, jnp.broadcast_to(number.astype(jnp.result_type(old)), np.shape(old))]
