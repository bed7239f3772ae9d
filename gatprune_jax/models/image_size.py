"""The least images that a network's poolings leave a pixel of."""

import jax

from gatprune_jax.errors import InputError


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
