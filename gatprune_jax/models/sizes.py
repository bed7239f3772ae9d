"""Which widths and images the networks take."""

from collections.abc import Iterable
from typing import Any

import jax

from gatprune_jax.errors import InputError


def are_widths(widths: Iterable[Any]) -> bool:
  """Whether all are numbers of channels: whole and positive."""
  return all(isinstance(width, int) and width > 0 for width in widths)


def refuse_smaller(x: jax.Array, halvings: int, network: str) -> None:
  """Refuses images that so many halvings leave nothing of; the mean of nothing is NaN.

  Args:
    x: images `[B, H, W, C]`.
    halvings: of each side.
    network: what the error calls it.

  Raises:
    InputError: where a side is below 2^halvings.
  """
  least = 2**halvings
  height, width = x.shape[1:3]
  if min(height, width) < least:
    raise InputError(
      f"images of {height} x {width} pixels: a {network} needs at least {least} x {least}"
    )
