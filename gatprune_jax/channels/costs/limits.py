"""Reads limits as people write them: shares of the dense network's cost, or numbers with units."""

import math
import re
from typing import Any

from gatprune_jax.errors import InputError

# {unit of a resource: {unit of a limit: its size}}, spelled as errors show them.
_UNITS = {
  "bytes": {
    "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
  },
  "seconds": {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1},
}  # fmt: skip
_THOUSANDS = {"k": 1e3, "M": 1e6, "G": 1e9}
_WRITTEN = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def read_limit(name: str, limit: Any, unit: str, dense: float) -> float:
  """Returns a limit as a share of the dense network's cost, in (0, 1].

  A limit of at least the dense network's cost is the share 1, which constrains nothing.

  Args:
    name: name of the resource.
    limit: a share above 0 and at most 1, as a number or as text; or text with a unit, such as
      "20M", "500KB" or "5ms", which is an absolute cost. The case of a unit does not matter, "k"
      and "KB" are thousands, and "KiB" is 1,024 bytes.
    unit: the resource's unit; see `Resource.unit`.
    dense: the dense network's cost, in that unit.

  Raises:
    InputError: the limit is no share and has no unit, its unit is unknown, or it is not positive.
  """
  number, suffix = _parsed(limit)
  # What is neither bytes nor time is counted, in its own unit or in thousands to billions of it.
  units = _UNITS.get(unit, {**_THOUSANDS, unit: 1})
  shown = ", ".join(units)
  if suffix:
    sizes = {name.lower(): size for name, size in units.items()}
    if suffix.lower() not in sizes:
      raise InputError(
        f"budget {limit} for {name} has the unknown unit {suffix!r}: choose from {shown}"
      )
    if not number > 0:
      raise InputError(f"budget {limit} for {name} is not positive: give a cost above 0")
    return min(number * sizes[suffix.lower()] / dense, 1.0)
  if not 0 < number <= 1:
    raise InputError(
      f"budget {limit} for {name} is not a share of the dense network: choose one above 0 and at "
      f"most 1, or add a unit, one of {shown}"
    )
  return number


def is_share(limit: Any) -> bool:
  """Returns whether a limit that `read_limit` accepts is a share, and not a cost with its unit."""
  return not _parsed(limit)[1]


def written(cost: float) -> str:
  """Formats a cost with three digits and a letter for thousands to billions."""
  for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if cost >= size:
      return f"{cost / size:.3g}{letter}"
  return f"{cost:.3g}"


def _parsed(limit: Any) -> tuple[float, str]:
  """Returns the number and the unit of a limit; NaN for what has no number."""
  if isinstance(limit, str):
    found = _WRITTEN.fullmatch(limit)
    return (float(found[1]), found[2]) if found else (math.nan, "")
  try:
    return (math.nan if isinstance(limit, bool) else float(limit)), ""
  except (TypeError, ValueError):
    return math.nan, ""
