"""Convolution as a matrix product, where XLA's own is slow on CPU.

`patches_convolution` is for weights with a candidate axis: XLA turns the vmap of a convolution over
its weights into a grouped convolution, which its CPU backend runs much more slowly, as it does
a weight gradient inside a loop. `matrix_convolution` is for many images on the same weights:
over a few positions XLA's convolution spends its time on the border.
"""

import itertools
import math

import jax
import jax.numpy as jnp

_FEW_POSITIONS = 16


def patches_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` by gathering patches.

  out[b, p, o] = sum_{k, i} padded[b, stride p + dilation k, i] rhs[k, i, o]

  Grouped convolutions and dilated inputs are left to XLA.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  plain = params["feature_group_count"] == 1 and params["batch_group_count"] == 1
  if not plain or any(d != 1 for d in params["lhs_dilation"]):
    return jax.lax.conv_general_dilated_p.bind(lhs, rhs, **params)
  dims = params["dimension_numbers"]
  x = jnp.transpose(lhs, (dims.lhs_spec[0], *dims.lhs_spec[2:], dims.lhs_spec[1]))
  kernel = jnp.transpose(rhs, (*dims.rhs_spec[2:], dims.rhs_spec[1], dims.rhs_spec[0]))
  window, (n_in, n_out) = kernel.shape[:-2], kernel.shape[-2:]
  x = jax.lax.pad(
    x, jnp.zeros((), x.dtype), ((0, 0, 0), *((a, b, 0) for a, b in params["padding"]), (0, 0, 0))
  )

  def shifted(offset):
    start, limit = [0], [x.shape[0]]
    for k, size, width, dilation, stride in zip(
      offset, x.shape[1:-1], window, params["rhs_dilation"], params["window_strides"], strict=True
    ):
      positions = (size - (width - 1) * dilation - 1) // stride + 1
      start.append(k * dilation)
      limit.append(k * dilation + (positions - 1) * stride + 1)
    strides = (1, *params["window_strides"], 1)
    return jax.lax.slice(x, (*start, 0), (*limit, n_in), strides)

  offsets = itertools.product(*(range(width) for width in window))
  patches = jnp.concatenate([shifted(offset) for offset in offsets], axis=-1)
  out = jax.lax.dot_general(
    patches,
    kernel.reshape(-1, n_out),
    (((patches.ndim - 1,), (0,)), ((), ())),
    precision=params["precision"],
    preferred_element_type=params["preferred_element_type"],
  )
  back = [0] * out.ndim  # out is [B, space..., O]
  for axis, where in enumerate((dims.out_spec[0], *dims.out_spec[2:], dims.out_spec[1])):
    back[where] = axis
  return jnp.transpose(out, back)


def matrix_convolution(lhs: jax.Array, rhs: jax.Array, **params) -> jax.Array:
  """Computes `conv_general_dilated(lhs, rhs, **params)` as one matrix, over few positions.

  A convolution is linear in its input: out[b] = x[b] M, with x[b] all elements of image b, and the
  rows of M the convolutions of the unit images. M has `positions * channels` rows, so that this
  pays where there are few of both and many images. More than 16 positions are left to XLA, and
  so are groups of images.

  Args:
    lhs: input, laid out as `dimension_numbers` says.
    rhs: kernel.
    **params: parameters of the primitive `conv_general_dilated`.
  """
  convolution = jax.lax.conv_general_dilated_p.bind
  dims = params["dimension_numbers"]
  positions = math.prod(lhs.shape[axis] for axis in dims.lhs_spec[2:])
  if positions > _FEW_POSITIONS or params["batch_group_count"] != 1:
    return convolution(lhs, rhs, **params)
  batch_in, batch_out = dims.lhs_spec[0], dims.out_spec[0]
  images = jnp.moveaxis(lhs, batch_in, 0)
  units = jnp.eye(images[0].size, dtype=lhs.dtype).reshape(-1, *images.shape[1:])
  matrix = convolution(jnp.moveaxis(units, 0, batch_in), rhs, **params)
  matrix = jnp.moveaxis(matrix, batch_out, 0)
  out = jax.lax.dot_general(
    images.reshape(len(images), -1),
    matrix.reshape(len(matrix), -1).astype(lhs.dtype),
    (((1,), (0,)), ((), ())),
    precision=params["precision"],
    preferred_element_type=params["preferred_element_type"],
  )
  return jnp.moveaxis(out.reshape(len(images), *matrix.shape[1:]), 0, batch_out)


def candidate_convolution():
  """The convolution for vmapped candidates on this backend; None means XLA's."""
  return patches_convolution if jax.default_backend() == "cpu" else None


def scoring_convolution():
  """The convolution for many masks on shared weights on this backend; None means XLA's."""
  return matrix_convolution if jax.default_backend() == "cpu" else None
