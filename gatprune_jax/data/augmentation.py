"""Random changes to training images; they are computed inside the jitted training step."""

import jax
import jax.numpy as jnp


def random_shift(key: jax.Array, x: jax.Array, pixels: int) -> jax.Array:
  """Shifts each image by up to `pixels` along both axes, and fills the gap by repeating the edge.

  Args:
    key: PRNG key.
    x: images `[B, H, W, C]`.
    pixels: largest shift in pixels; 0 returns x.
  """
  if pixels == 0:
    return x
  padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
  offsets = jax.random.randint(key, (x.shape[0], 2), 0, 2 * pixels + 1)
  crop = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:])
  return jax.vmap(crop)(padded, offsets)


def random_flip(key: jax.Array, x: jax.Array) -> jax.Array:
  """Mirrors each image left to right with probability 1/2.

  Args:
    key: PRNG key.
    x: images `[B, H, W, C]`.
  """
  mirrored = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
  return jnp.where(mirrored, x[:, :, ::-1], x)
