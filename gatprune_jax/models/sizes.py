"""Checks of the widths and image sizes that the networks accept."""

from collections.abc import Iterable
from typing import Any

import jax

from gatprune_jax.errors import InputError


def are_widths(widths: Iterable[Any]) -> bool:
  """Returns whether all widths are valid numbers of channels: whole and positive."""
  return all(isinstance(width, int) and width > 0 for width in widths)


def refuse_smaller(x: jax.Array, halvings: int, network: str) -> None:
  """Raises InputError for images that the network would shrink to an empty feature map.

  The mean over an empty feature map is NaN.

  Args:
    x: images `[B, H, W, C]`.
    halvings: how often the network halves each side.
    network: name of the network in the error.

  Raises:
    InputError: if a side is below 2^halvings.
  """
  least = 2**halvings
  height, width = x.shape[1:3]
  if min(height, width) < least:
    raise InputError(
      f"images of {height} x {width} pixels: a {network} needs at least {least} x {least}"
    )
