"""The gradient of a convolution with respect to its kernel, as matrix products."""

from typing import Any

import jax
import jax.numpy as jnp

# A large batch is processed in blocks of images, because on CPU the data of one block stays in the
# cache. Each block is compiled separately, because a loop over the blocks is slower; so there are
# only as many as the size of x asks for. More than four were no faster with 64 images of CIFAR's
# size.
_BLOCK_BYTES = 2**20
_MOST_BLOCKS = 4


def kernel_gradient(
  x: jax.Array,
  g: jax.Array,
  size: tuple[int, int],
  strides: tuple[int, int],
  padding: tuple[tuple[int, int], ...],
  dilations: tuple[int, int],
  precision: Any,
) -> jax.Array:
  """Computes dL/dw `[H, W, I, O]` of a two-dimensional convolution whose input is not dilated.

  With x padded, strides s, t and dilations d, e,

    dL/dw[a, b, i, o] = sum_{n, u, v} x[n, s u + d a, t v + e b, i] g[n, u, v, o]

  For all a and b at once, the sum is one matrix product. The first factor holds x at all H W
  positions of the kernel beside each other, `[n u v, H W I]`, and the second factor is g. Where s
  is 1, it is faster to shift g instead of x from row to row, with g zero outside of its positions:

    dL/dw[a, b, i, o] = sum_{n, u, v} x[n, u, t v + e b, i] g[n, u - d a, v, o]

  Then both factors, `[n u v, W I]` and `[n u v, H O]`, are wide, and wide factors are multiplied
  fast. If the gradient were a convolution of x with g, one factor would have only I rows. The
  gradient is summed over blocks of images.

  Args:
    x: input `[N, h, w, I]`.
    g: dL/dout `[N, h', w', O]`, of the same type as x.
    size: H and W of the kernel.
    strides: s and t.
    padding: padding of x, `((low, high), (low, high))`; negative where x is cropped.
    dilations: d and e of the kernel.
    precision: precision of the matrix product.
  """
  if g.size == 0:
    return jnp.zeros((*size, x.shape[-1], g.shape[-1]), g.dtype)
  edges = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
  height, width = size
  moves_g = strides[0] == 1

  def read(x, axis, place):
    first, step = place * dilations[axis - 1], strides[axis - 1]
    last = first + step * (g.shape[axis] - 1)
    return jax.lax.slice_in_dim(x, first, last + 1, step, axis)

  def product(x, g):
    rows, above = [x], g
    if moves_g:
      reach = dilations[0] * (height - 1)
      g = jnp.pad(g, ((0, 0), (reach, reach), (0, 0), (0, 0)))
      starts = range(reach, -1, -dilations[0])
      above = jnp.concatenate([g[:, start : start + x.shape[1]] for start in starts], axis=-1)
    else:
      rows = [read(x, 1, a) for a in range(height)]
    beside = jnp.concatenate([read(row, 2, b) for row in rows for b in range(width)], axis=-1)
    # Both factors are reshaped to matrices, because a product over three axes is slower on CPU.
    beside, above = (side.reshape(-1, side.shape[-1]) for side in (beside, above))
    return jnp.matmul(beside.T, above, precision=precision)

  num_blocks = min(_MOST_BLOCKS, -(-x.nbytes // _BLOCK_BYTES))
  block = -(-len(x) // max(1, num_blocks))
  blocks = (slice(start, start + block) for start in range(0, len(x), block))
  total = sum(product(x[images], g[images]) for images in blocks)
  if not moves_g:
    return total.reshape(height, width, x.shape[-1], g.shape[-1])
  return total.reshape(width, x.shape[-1], height, g.shape[-1]).transpose(2, 0, 1, 3)
