"""Tests of how many images and masks are computed at once, against values by hand."""

import jax
import jax.numpy as jnp
import pytest

from gatprune_jax.evaluation import images_at_once, largest_activation, masks_at_once


def test_the_largest_activation_is_found_in_every_body():
  # The input has 3 elements and is not computed. The largest result is [5, 3], in a scan's body.
  def fn(x):
    step = lambda total, y: (total + jnp.broadcast_to(y[None], (5, 3)).max(0), y[0])
    return jax.jit(lambda x: jax.lax.scan(step, x, jnp.stack([x, x])))(x)

  assert largest_activation(fn, jax.ShapeDtypeStruct((3,), jnp.float32)) == 4 * 5 * 3
  assert largest_activation(fn, jax.ShapeDtypeStruct((3,), jnp.bfloat16)) == 2 * 5 * 3
  assert largest_activation(lambda x: x, jnp.ones(3)) == 1


@pytest.mark.parametrize(
  ("bytes_each", "own_weights", "backend", "expected"),
  [
    (10**6, False, "cpu", 3),
    (10**6, True, "cpu", 1),
    (10**8, False, "cpu", 1),
    (2**25, False, "gpu", 32),
    (2**25, True, "gpu", 32),
    (2**31, False, "tpu", 1),
  ],
)
def test_masks_at_once(bytes_each, own_weights, backend, expected):
  assert masks_at_once(bytes_each, own_weights, backend) == expected


def test_images_at_once():
  # 16 x 32 x 32 float32 values are 65,536 bytes, and 48 arrays of that size fill 3 MiB.
  assert images_at_once(2**16, "cpu") == 48
  assert images_at_once(2**30, "cpu") == 1
  assert images_at_once(2**16, "gpu") == 2**14
