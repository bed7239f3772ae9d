"""Convolutions as matrix products against XLA's, gradients included."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.evaluation import candidate_convolution, product_convolution, scoring_convolution

CASES = {
  "same": {"padding": "SAME"},
  "strided": {"padding": ((1, 1), (1, 1)), "window_strides": (2, 2)},
  "uneven": {"padding": ((2, 0), (0, 3)), "window_strides": (1, 3)},
  "dilated": {"padding": "VALID", "rhs_dilation": (2, 1)},
  "nchw": {"padding": "SAME", "dimension_numbers": ("NCHW", "OIHW", "NHWC")},
  "grouped": {"padding": "SAME", "feature_group_count": 2},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dense", [(), (1,), (0,), (0, 1)])
@pytest.mark.parametrize(
  ("window", "space"), [((3, 3), (7, 8)), ((1, 1), (7, 8)), ((2, 3), (5, 3))]
)
def test_equal_to_xla(case, dense, window, space):
  arguments = {
    "window_strides": (1, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **CASES[case]
  }  # fmt: skip
  rng = np.random.default_rng(0)
  per_group = 4 // arguments.get("feature_group_count", 1)
  x, kernel = rng.standard_normal((2, *space, 4)), rng.standard_normal((*window, per_group, 6))
  if case == "nchw":
    x, kernel = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
  x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
  xla = lambda x, kernel: lax.conv_general_dilated(x, kernel, **arguments)
  (eqn,) = jax.make_jaxpr(xla)(x, kernel).eqns
  ours = lambda x, kernel: product_convolution(x, kernel, dense, **eqn.params)

  np.testing.assert_allclose(ours(x, kernel), xla(x, kernel), atol=1e-4)
  loss = lambda fn: jax.grad(lambda *args: (fn(*args) ** 2).mean(), argnums=(0, 1))(x, kernel)
  for one, other in zip(loss(ours), loss(xla), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("space", [(4, 4), (12, 8), (9, 12)])
def test_every_choice_is_the_convolution(space):
  x = jax.random.normal(jax.random.key(0), (2, *space, 3))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 5))
  layout = ("NHWC", "HWIO", "NHWC")
  xla = lambda x, kernel: lax.conv_general_dilated(
    x, kernel, (2, 2), "SAME", dimension_numbers=layout
  )
  (eqn,) = jax.make_jaxpr(xla)(x, kernel).eqns
  for chosen in (candidate_convolution(), scoring_convolution()):
    np.testing.assert_allclose(chosen(x, kernel, **eqn.params), xla(x, kernel), atol=1e-4)
