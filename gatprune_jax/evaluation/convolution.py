"""Convolution as a matrix product, where XLA's own is slow on CPU.

XLA turns the vmap of a convolution over its weights into a grouped convolution, which its CPU
backend runs much more slowly, as it does a weight gradient inside a loop; and over a few positions
its convolution spends its time on the border. A matrix product has none of these weaknesses.
"""

from collections.abc import Callable, Sequence
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

_FEW_POSITIONS = 16
_LARGEST_MATRIX = 2**24  # elements, generously counted; a wide network has hundreds of such layers


def product_convolution(
  lhs: jax.Array, rhs: jax.Array, dense: Sequence[int] = (), **params
) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` as a matrix product.

  Along most axes the input is gathered into patches, one for each offset k of the window:

    out[b, q, o] = sum_{k, i} padded[b, stride q + dilation k, i] rhs[k, i, o]

  Along a dense axis a matrix takes all input positions p to all output positions q instead. It
  holds more zeros the longer the axis is, but nothing is gathered:

    out[b, q, o] = sum_{p, i} in[b, p, i] M[p, i, q, o]
    M[p, i, q, o] = sum_k S[k, p, q] rhs[k, i, o]

  with S[k, p, q] = 1 where p = stride q + dilation k - padding.

  Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    dense: spatial axes, numbered as in the window.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  if not _is_plain(params):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  dims = params["dimension_numbers"]
  axes = range(len(dims.lhs_spec) - 2)
  gathered = [axis for axis in axes if axis not in dense]
  num_gathered = len(gathered)
  order = [*gathered, *dense]
  spatial = lambda spec: [spec[2 + axis] for axis in order]
  x = jnp.transpose(lhs, (dims.lhs_spec[0], *spatial(dims.lhs_spec), dims.lhs_spec[1]))
  matrix = jnp.transpose(rhs, (*spatial(dims.rhs_spec), dims.rhs_spec[1], dims.rhs_spec[0]))

  window = matrix.shape[:num_gathered]
  for place, axis in enumerate(gathered):
    x = _padded(x, 1 + place, params["padding"][axis])
  offsets = list(itertools.product(*map(range, window)))
  patches = [_shifted(x, offset, window, gathered, params) for offset in offsets]
  x = jnp.stack(patches, axis=1 + num_gathered)  # [B, q gathered..., offsets, p dense..., I]

  matrix = matrix.reshape(len(offsets), *matrix.shape[num_gathered:])
  for place, axis in enumerate(dense):
    reads = _reads(lhs.shape[dims.lhs_spec[2 + axis]], matrix.shape[1 + place], axis, params)
    matrix = jnp.tensordot(matrix, jnp.asarray(reads, matrix.dtype), ((1 + place,), (0,)))
    # From [..., O, p, q] with the offset gone: p takes its place, q stands before O.
    matrix = jnp.moveaxis(matrix, (-2, -1), (1 + place, -2))
  contracted = 2 + len(dense)  # offsets, p dense..., I
  out = jax.lax.dot_general(
    x,
    matrix,
    ((range(x.ndim - contracted, x.ndim), range(contracted)), ((), ())),
    precision=params["precision"],
    preferred_element_type=params["preferred_element_type"],
  )  # [B, q gathered..., q dense..., O]
  back = [0] * out.ndim
  for axis, where in enumerate((dims.out_spec[0], *spatial(dims.out_spec), dims.out_spec[1])):
    back[where] = axis
  return jnp.transpose(out, back)


def candidate_convolution() -> Callable | None:
  """The convolution for vmapped candidates with weights of their own; None means XLA's."""
  return product_convolution if jax.default_backend() == "cpu" else None


def scoring_convolution() -> Callable | None:
  """The convolution for many masks on shared weights; None means XLA's.

  On CPU, images of few positions go through one matrix, where it is small.
  """

  def convolution(lhs, rhs, **params):
    space = _space(lhs, params)
    positions = math.prod(space)
    if positions <= _FEW_POSITIONS and positions**2 * rhs.size <= _LARGEST_MATRIX:
      return product_convolution(lhs, rhs, range(len(space)), **params)
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)

  return convolution if jax.default_backend() == "cpu" else None


def _is_plain(params) -> bool:
  groups = params["feature_group_count"], params["batch_group_count"]
  return groups == (1, 1) and all(dilation == 1 for dilation in params["lhs_dilation"])


def _space(lhs: jax.Array, params) -> list[int]:
  return [lhs.shape[axis] for axis in params["dimension_numbers"].lhs_spec[2:]]


def _padded(x: jax.Array, place: int, padding: tuple[int, int]) -> jax.Array:
  config = [(0, 0, 0)] * x.ndim
  config[place] = (*padding, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def _shifted(
  x: jax.Array, offset: Sequence[int], window: Sequence[int], gathered: Sequence[int], params
) -> jax.Array:
  """What one offset of the window reads along the gathered axes, which follow the batch's."""
  start, limit, strides = [0] * x.ndim, list(x.shape), [1] * x.ndim
  for place, (k, width, axis) in enumerate(zip(offset, window, gathered, strict=True), start=1):
    dilation, stride = params["rhs_dilation"][axis], params["window_strides"][axis]
    positions = (x.shape[place] - (width - 1) * dilation - 1) // stride + 1
    start[place] = k * dilation
    limit[place] = k * dilation + (positions - 1) * stride + 1
    strides[place] = stride
  return jax.lax.slice(x, start, limit, strides)


def _reads(size: int, width: int, axis: int, params) -> np.ndarray:
  """S[k, p, q] along one axis: whether output q reads input p at offset k, bool."""
  low, high = params["padding"][axis]
  dilation, stride = params["rhs_dilation"][axis], params["window_strides"][axis]
  positions = (size + low + high - (width - 1) * dilation - 1) // stride + 1
  k, p, q = np.ogrid[:width, :size, :positions]
  return p == stride * q + dilation * k - low
