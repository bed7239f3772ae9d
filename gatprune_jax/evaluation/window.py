"""What a convolution does, apart from the layout of its operands."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Window(NamedTuple):
  """How a window moves over `[B, p..., I]`; the parameters of `conv_general_dilated`."""

  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  lhs_dilation: tuple[int, ...]
  rhs_dilation: tuple[int, ...]
  precision: Any
  preferred_element_type: Any


def computed_by(
  fn: Callable[[Window, jax.Array, jax.Array], jax.Array],
  lhs: jax.Array,
  rhs: jax.Array,
  params: Mapping[str, Any],
) -> jax.Array:
  """`conv_general_dilated(lhs, rhs, **params)` as `fn(window, x, w)`, whatever the layout.

  Grouped convolutions and those of dilated inputs are left to XLA.

  Args:
    fn: takes x `[B, p..., I]` and w `[k..., I, O]` to `[B, q..., O]`.
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    params: of the primitive `conv_general_dilated`.
  """
  groups = params["feature_group_count"], params["batch_group_count"]
  if groups != (1, 1) or any(dilation != 1 for dilation in params["lhs_dilation"]):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  dims = params["dimension_numbers"]
  batch, channels, *space = dims.lhs_spec
  x = jnp.transpose(lhs, (batch, *space, channels))
  channels_out, channels_in, *space = dims.rhs_spec
  w = jnp.transpose(rhs, (*space, channels_in, channels_out))
  window = Window(
    tuple(params["window_strides"]),
    tuple(map(tuple, params["padding"])),
    tuple(params["lhs_dilation"]),
    tuple(params["rhs_dilation"]),
    params["precision"],
    params["preferred_element_type"],
  )
  batch, channels, *space = dims.out_spec
  return jnp.transpose(fn(window, x, w), np.argsort((batch, *space, channels)))


def convolve(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """XLA's convolution: `[B, p..., I]`, `[k..., I, O]` -> `[B, q..., O]`."""
  num_axes = x.ndim - 2
  space = tuple(range(1, 1 + num_axes))
  dims = jax.lax.ConvDimensionNumbers(
    (0, 1 + num_axes, *space),
    (1 + num_axes, num_axes, *range(num_axes)),
    (0, 1 + num_axes, *space),
  )
  return jax.lax.conv_general_dilated(
    x, w, *window[:4], dims, precision=window.precision,
    preferred_element_type=window.preferred_element_type,
  )  # fmt: skip
