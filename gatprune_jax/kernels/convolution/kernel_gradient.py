"""The gradient of a convolution with respect to its kernel, as matrix products."""

from typing import Any

import jax
import jax.numpy as jnp

# On CPU a part of the images stays in the cache. Every block is compiled, since a loop over them is
# slower; more of them were no faster with 64 images of CIFAR's size.
_BLOCKS = 4


def kernel_gradient(
  x: jax.Array,
  g: jax.Array,
  size: tuple[int, int],
  strides: tuple[int, int],
  padding: tuple[tuple[int, int], ...],
  dilations: tuple[int, int],
  precision: Any,
) -> jax.Array:
  """dL/dw of a two-dimensional convolution whose input is not dilated, `[H, W, I, O]`.

  With x padded, strides s, t and dilations d, e,

    dL/dw[a, b, i, o] = sum_{n, u, v} x[n, s u + d a, t v + e b, i] g[n, u, v, o]

  for all a, b at once is one product: of x at all H W places beside each other, `[n u v, H W I]`,
  and g. Where s is 1, it is faster to move g instead of x from row to row, g zero outside of its
  positions:

    dL/dw[a, b, i, o] = sum_{n, u, v} x[n, u, t v + e b, i] g[n, u - d a, v, o]

  Both sides, `[n u v, W I]` and `[n u v, H O]`, are wide then; in a convolution of x with g one
  has I rows. It is summed over blocks of images.

  Args:
    x: input `[N, h, w, I]`.
    g: dL/dout `[N, h', w', O]`, of x's type.
    size: of the kernel, H and W.
    strides: s and t.
    padding: of x, `((low, high), (low, high))`; negative where it is cropped.
    dilations: of the kernel, d and e.
    precision: of the product.
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
    # One matrix each: a product over three axes is slower on CPU.
    beside, above = (side.reshape(-1, side.shape[-1]) for side in (beside, above))
    return jnp.matmul(beside.T, above, precision=precision)

  block = -(-len(x) // _BLOCKS)
  blocks = (slice(start, start + block) for start in range(0, len(x), block))
  total = sum(product(x[images], g[images]) for images in blocks)
  if not moves_g:
    return total.reshape(height, width, x.shape[-1], g.shape[-1])
  return total.reshape(width, x.shape[-1], height, g.shape[-1]).transpose(2, 0, 1, 3)
