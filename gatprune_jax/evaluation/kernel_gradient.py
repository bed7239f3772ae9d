"""The gradient of a convolution with respect to its kernel, as matrix products."""

from typing import Any

import jax
import jax.numpy as jnp

# On CPU a part of the images stays in the cache. Every block is compiled, since a loop over them is
# slower; more of them were no faster with 64 images of CIFAR's size.
_BLOCKS = 4


def kernel_gradient(
  x: jax.Array, g: jax.Array, padding: tuple[tuple[int, int], ...], precision: Any
) -> jax.Array:
  """dL/dw of a two-dimensional convolution of stride 1 without dilation, `[H, W, I, O]`.

  With x padded, and g zero outside of its positions,

    dL/dw[a, b, i, o] = sum_{n, u, v} x[n, u, v + b, i] g[n, u - a, v, o]

  for all a, b at once is one product: of x at W places beside each other, `[n u v, W I]`, and g at
  H places above each other, `[n u v, H O]`. Both sides are wide, where a convolution of x with g
  has I rows. It is summed over blocks of images.

  Args:
    x: input `[N, h, w, I]`.
    g: dL/dout `[N, h', w', O]`, of x's type.
    padding: of x, `((low, high), (low, high))`; negative where it is cropped.
    precision: of the product.
  """
  edges = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
  (x_rows, x_columns), (g_rows, g_columns) = x.shape[1:3], g.shape[1:3]
  height, width = x_rows - g_rows + 1, x_columns - g_columns + 1  # of the kernel

  def product(x, g):
    beside = jnp.concatenate([x[:, :, b : b + g_columns] for b in range(width)], axis=-1)
    g = jnp.pad(g, ((0, 0), (height - 1, height - 1), (0, 0), (0, 0)))
    shifts = reversed(range(height))
    above = jnp.concatenate([g[:, start : start + x_rows] for start in shifts], axis=-1)
    # One matrix each: a product over three axes is slower on CPU.
    beside, above = (side.reshape(-1, side.shape[-1]) for side in (beside, above))
    return jnp.matmul(beside.T, above, precision=precision)

  size = -(-len(x) // _BLOCKS)
  blocks = (slice(start, start + size) for start in range(0, len(x), size))
  total = sum(product(x[block], g[block]) for block in blocks)
  return total.reshape(width, x.shape[-1], height, g.shape[-1]).transpose(2, 0, 1, 3)
