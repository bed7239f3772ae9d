"""Grouped convolutions without groups, because XLA's CPU backend has no fast code for groups.

There are two cases. In a depthwise convolution every group has one input channel, so that each
position of the kernel contributes a product of elements. Other groups are joined to sets, each of
which is a convolution without groups, whose kernel is zero between channels of different groups.
The zeros cost less than the groups do, as `experiments.bench --only=grouped_convolutions` measures.
"""

from collections.abc import Callable
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.kernels.convolution.window import (
  Window,
  canonical_layout,
  convolve_by_xla,
  positions,
)

# A product is compiled for each position of a depthwise kernel. Larger kernels are left to XLA.
_MOST_PLACES = 49
# A set has about 32 input channels, or more where that would make more than eight sets, because
# each is compiled by itself. Among sets of 16 to 256 channels those of 16 and 32 were fastest.
_SET = 32
_MOST_SETS = 8


def group_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)`, in groups by `convolve_groups`.

  Convolutions without groups, and convolutions of dilated inputs, are computed by XLA.

  Args:
    lhs: input, in the layout that `dimension_numbers` describes.
    rhs: kernel, in the layout that `dimension_numbers` describes.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  if params["feature_group_count"] == 1:
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  grouped = functools.partial(convolve_groups, convolve_by_xla)
  return canonical_layout(convolve_by_xla, lhs, rhs, params, grouped)


def convolve_groups(
  fn: Callable[[Window, jax.Array, jax.Array], jax.Array],
  window: Window,
  groups: int,
  x: jax.Array,
  w: jax.Array,
) -> jax.Array:
  """Computes a convolution in G groups: `[B, p..., I]`, `[k..., I / G, O]` -> `[B, q..., O]`.

  The first I / G input channels contribute to the first O / G output channels alone, and so on.
  The input must not be dilated.

  Args:
    fn: computes convolutions without groups, called as `fn(window, x, w)`.
    window: parameters of the convolution.
    groups: G.
    x: input.
    w: kernel.
  """
  if w.shape[-2] > 1:
    return _in_sets(fn, window, groups, x, w)
  if math.prod(w.shape[:-2]) <= _MOST_PLACES:
    return _by_places(window, x, w)
  return convolve_by_xla(window, x, w, groups)


def _by_places(window: Window, x: jax.Array, w: jax.Array) -> jax.Array:
  """Computes a depthwise convolution: `[B, p..., I]`, `[k..., 1, O]` -> `[B, q..., O]`.

  With x padded, strides s, dilations d of the kernel, and M = O / I outputs of each input,

    out[b, q, i M + m] = sum_k x[b, s q + d k, i] w[k, 0, i M + m]
  """
  sizes = positions(window, x, w)
  dtype = window.preferred_element_type or x.dtype
  # XLA adds numbers of 16 bits up with 32, too.
  wide = jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in window.padding), (0, 0, 0)]
  )
  num_in, num_out = x.shape[-1], w.shape[-1]
  kernels = w.reshape(*w.shape[:-2], num_in, num_out // num_in).astype(wide)
  total = jnp.zeros((len(x), *sizes, *kernels.shape[-2:]), wide)
  ones = (None,) * (x.ndim - 1)  # batch and space
  places = itertools.product(*map(range, w.shape[:-2])) if all(sizes) else ()
  for place in places:
    starts = [d * k for d, k in zip(window.rhs_dilation, place, strict=True)]
    stops = [
      start + stride * (size - 1) + 1
      for start, stride, size in zip(starts, window.strides, sizes, strict=True)
    ]
    read = jax.lax.slice(x, (0, *starts, 0), (len(x), *stops, num_in), (1, *window.strides, 1))
    total = total + read[..., None].astype(wide) * kernels[(*place, *ones)]
  return total.reshape(len(x), *sizes, num_out).astype(dtype)


def _in_sets(
  fn: Callable[[Window, jax.Array, jax.Array], jax.Array],
  window: Window,
  groups: int,
  x: jax.Array,
  w: jax.Array,
) -> jax.Array:
  """Computes a convolution in groups as convolutions of sets of groups; see `convolve_groups`."""
  *size, num_in, num_out = w.shape
  by_group = w.reshape(*size, num_in, groups, num_out // groups)
  together = max(1, _SET // num_in, -(-groups // _MOST_SETS))
  parts = []
  for first in range(0, groups, together):
    kernels = by_group[..., first : first + together, :]
    num = kernels.shape[-2]
    # K[k, (f, i), (g, o)] = w[k, i, (g, o)] where f = g, else 0
    own = np.eye(num, dtype=bool).reshape(*(1 for _ in size), num, 1, num, 1)
    joined = jnp.where(own, jnp.expand_dims(kernels, -4), 0)
    joined = joined.reshape(*size, num * num_in, num * num_out // groups)
    parts.append(fn(window, x[..., first * num_in : (first + num) * num_in], joined))
  return jnp.concatenate(parts, axis=-1)
