"""Tests that convolutions in other forms equal XLA's: values, gradients, and under vmap."""

import jax
from jax import lax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np
import pytest

from gatprune_jax.kernels.convolution import (
  block_convolution,
  candidate_convolution,
  candidate_width,
  canonical_convolution,
  merged_convolution,
  scoring_convolution,
)
from gatprune_jax.kernels.convolution.kernel_gradient import kernel_gradient
from gatprune_jax.kernels.convolution.window import Window, window_matrix

CASES = {
  "same": {"padding": "SAME"},
  "strided": {"padding": ((1, 1), (1, 1)), "window_strides": (2, 2)},
  "uneven": {"padding": ((2, 0), (0, 3)), "window_strides": (1, 3)},
  "cropped": {"padding": ((-1, 2), (1, -1))},
  "dilated": {"padding": "VALID", "rhs_dilation": (2, 1)},
  "strided and dilated": {
    "padding": ((2, 1), (3, 2)), "window_strides": (2, 3), "rhs_dilation": (2, 2)
  },
  "nchw": {"padding": "SAME", "dimension_numbers": ("NCHW", "OIHW", "NHWC")},
  "mixed layout": {"padding": ((1, 0), (0, 2)), "dimension_numbers": ("HNCW", "OHIW", "NCWH")},
  "grouped": {"padding": "SAME", "feature_group_count": 2},
  "grouped and dilated": {
    "padding": ((2, 1), (3, 2)), "window_strides": (2, 1), "rhs_dilation": (1, 2),
    "feature_group_count": 2,
  },
  "depthwise": {"padding": "SAME", "feature_group_count": 4},
  "depthwise and strided": {
    "padding": ((-1, 2), (3, 1)), "window_strides": (2, 3), "rhs_dilation": (2, 1),
    "feature_group_count": 4, "dimension_numbers": ("NCHW", "OIHW", "NHWC"),
  },
  "dilated input": {"padding": ((1, 1), (0, 2)), "lhs_dilation": (1, 2)},
}  # fmt: skip
LAYOUT = ("NHWC", "HWIO", "NHWC")
FORMS = (block_convolution, canonical_convolution, merged_convolution)


def problem(case, window=(3, 3), space=(7, 8), leading=((), ()), num_images=2):
  """Returns XLA's convolution, the parameters of its primitive, and random operands.

  Args:
    case: a key of `CASES`.
    window: height and width of the kernel.
    space: height and width of the images.
    leading: shapes of the leading axes of images and kernel.
    num_images: batch size.
  """
  arguments = {"window_strides": (1, 1), "dimension_numbers": LAYOUT, **CASES[case]}
  sizes = dict(zip("NHWC", (num_images, *space, 4), strict=True))
  groups = arguments.get("feature_group_count", 1)
  sizes |= {"I": 4 // groups, "O": 8 if groups == 4 else 6}
  lhs, rhs, _ = arguments["dimension_numbers"]
  shape = [sizes[name] for name in lhs]
  kernel = [(sizes | dict(zip("HW", window, strict=True)))[name] for name in rhs]
  rng = np.random.default_rng(0)
  operands = [
    jnp.asarray(rng.standard_normal((*lead, *dims)), jnp.float32)
    for lead, dims in zip(leading, (shape, kernel), strict=True)
  ]
  xla = lambda x, w: lax.conv_general_dilated(x, w, **arguments)
  (eqn,) = jax.make_jaxpr(xla)(jnp.zeros(shape), jnp.zeros(kernel)).eqns
  return xla, eqn.params, operands


def assert_same_values_and_gradients(ours, xla, operands):
  def results(*operands):
    # The loss is a cube, so that its gradient is not constant in the output.
    cube = lambda fn: lambda *args: (fn(*args) ** 3).mean()
    return [(fn(*operands), jax.grad(cube(fn), argnums=(0, 1))(*operands)) for fn in (ours, xla)]

  one, other = jax.jit(results)(*operands)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, other)
  assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a.dtype == b.dtype, one, other)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("convolution", FORMS)
@pytest.mark.parametrize(
  ("window", "space"),
  [((3, 3), (7, 8)), ((1, 1), (7, 8)), ((2, 3), (5, 5)), ((3, 3), (2, 2)), ((5, 3), (3, 4))],
)
def test_equal_to_xla(case, convolution, window, space):
  xla, params, operands = problem(case, window, space)
  assert_same_values_and_gradients(lambda x, w: convolution(x, w, **params), xla, operands)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("convolution", [canonical_convolution, merged_convolution])
def test_under_vmap(case, in_axes, convolution):
  leading = tuple(() if axis is None else (3,) for axis in in_axes)
  xla, params, operands = problem(case, leading=leading)
  ours = lambda x, w: convolution(x, w, **params)
  batched = lambda fn: jax.vmap(fn, in_axes)
  assert_same_values_and_gradients(jax.jit(batched(ours)), batched(xla), operands)


@pytest.mark.parametrize("convolution", [canonical_convolution, merged_convolution])
def test_under_two_vmaps(convolution):
  # The inputs differ along both mapped axes, and the weights along the inner axis only.
  xla, params, operands = problem("strided", leading=((2, 3), (3,)))
  ours = lambda x, w: convolution(x, w, **params)
  batched = lambda fn: jax.vmap(jax.vmap(fn), (0, None))
  assert_same_values_and_gradients(batched(ours), batched(xla), operands)


def test_canonical_makes_no_grouped_convolutions():
  xla, params, operands = problem("strided", leading=((3,), (3,)))
  program = lambda fn: str(
    jax.make_jaxpr(jax.grad(lambda *args: jax.vmap(fn)(*args).sum(), (0, 1)))(*operands)
  )
  assert "feature_group_count=3" in program(xla)
  assert "feature_group_count=3" not in program(lambda x, w: canonical_convolution(x, w, **params))


def convolutions(fn, *operands):
  """Returns the parameters and the number of output channels of every convolution in fn."""

  def of(jaxpr):
    for eqn in jaxpr.eqns:
      if eqn.primitive is lax.conv_general_dilated_p:
        yield eqn.params, eqn.outvars[0].aval.shape[-1]
      for body in jex_core.jaxprs_in_params(eqn.params):
        yield from of(getattr(body, "jaxpr", body))

  return list(of(jax.make_jaxpr(fn)(*operands).jaxpr))


@pytest.mark.parametrize(
  ("dilation", "inputs", "expected"),
  # Two outputs side by side read four inputs. Where the input is dilated by 2, they read two
  # inputs, each of which is followed by a zero.
  [(1, range(-1, 3), [[1, 0], [2, 1], [3, 2], [0, 3]]), (2, range(2), [[2, 1], [0, 3]])],
)
def test_what_neighbours_read(dilation, inputs, expected):
  window = Window((1,), ((1, 1),), (dilation,), (1,), None, None)
  w = jnp.array([1.0, 2.0, 3.0])[:, None, None]
  matrix = window_matrix(window, w, [inputs], [range(2)])
  np.testing.assert_array_equal(matrix[:, 0, :, 0], expected)


@pytest.mark.parametrize(
  ("num_out", "stride", "expected"),
  [(1, 1, (8, 8)), (6, 1, (8, 48)), (13, 1, (2, 26)), (24, 1, (2, 48)), (25, 1, (1, 25)),
   (6, 2, (16, 48)), (6, 3, (3, 6))],
)  # fmt: skip
def test_a_block_of_neighbours_has_at_most_48_channels(num_out, stride, expected):
  x, w = jnp.zeros((2, 5, 16, 4)), jnp.zeros((3, 3, 4, num_out))
  xla = lambda x, w: lax.conv_general_dilated(x, w, (1, stride), "SAME", dimension_numbers=LAYOUT)
  (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
  ((params, channels),) = convolutions(lambda x, w: block_convolution(x, w, **eqn.params), x, w)
  assert (params["window_strides"][1], channels) == expected


def test_gradients_of_strided_convolutions_multiply_no_dilated_input():
  xla, params, operands = problem("strided")
  grad = lambda fn: jax.grad(lambda x, w: fn(x, w).sum())
  dilated = lambda fn: [
    params["lhs_dilation"]
    for params, _ in convolutions(grad(fn), *operands)
    if params["lhs_dilation"] != (1, 1)
  ]
  assert dilated(xla) == [(2, 2)]
  assert not dilated(lambda x, w: canonical_convolution(x, w, **params))


@pytest.mark.parametrize(("space", "as_product"), [((2, 2), True), ((2, 4), True), ((7, 8), False)])
def test_kernels_of_more_positions_than_the_input_are_products(space, as_product):
  # XLA would take the input for the kernel, which is slow.
  _, params, operands = problem("same", space=space)
  ours = jax.grad(lambda x, w: canonical_convolution(x, w, **params).sum())
  assert bool(convolutions(ours, *operands)) != as_product


def test_a_matrix_much_larger_than_its_kernel_is_not_made():
  xla = lambda x, w: lax.conv_general_dilated(
    x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
  )
  x, w = jnp.zeros((2, 90, 3)), jnp.zeros((99, 3, 40))
  (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
  assert convolutions(lambda x, w: block_convolution(x, w, **eqn.params), x, w)


@pytest.mark.parametrize("padding", [((-1, 2), (0, 0)), ((-1, 1), (0, -1))])
@pytest.mark.parametrize("convolution", [block_convolution, canonical_convolution])
def test_nothing_beyond_a_cropped_input_is_read(convolution, padding):
  # XLA reads beyond a cropped input (https://github.com/openxla/xla/issues/48713), so its own
  # result is no reference.
  rng = np.random.default_rng(0)
  x, w = (rng.standard_normal(dims).astype(np.float32) for dims in ((2, 6, 6, 4), (2, 1, 4, 2)))
  of = lambda padding: (
    lambda x, w: lax.conv_general_dilated(x, w, (2, 2), padding, dimension_numbers=LAYOUT)
  )
  (eqn,) = jax.make_jaxpr(of(padding))(x, w).eqns
  padded = np.pad(x, ((0, 0), (0, max(0, padding[0][1])), (0, 0), (0, 0)))
  cut = padded[:, 1:, : 6 + padding[1][1]]
  np.testing.assert_allclose(
    convolution(x, w, **eqn.params), of("VALID")(cut, w), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("num_candidates", [1, 10, 11, 23])
def test_merged_sets_of_any_number_of_candidates(num_candidates):
  # Ten candidates of six channels are merged into a set, and zeros fill up the last set.
  xla, params, operands = problem("strided", leading=((num_candidates,), (num_candidates,)))
  ours = lambda x, w: merged_convolution(x, w, **params)
  assert_same_values_and_gradients(jax.jit(jax.vmap(ours)), jax.vmap(xla), operands)


def test_nothing_of_a_candidate_enters_another():
  _, params, (x, w) = problem("same", leading=((3,), (3,)))
  loss = lambda w, x: (merged_convolution(x, w, **params) ** 2).sum()
  gradients = jax.vmap(jax.grad(loss, argnums=(0, 1)))
  expected = gradients(w, x)
  found = gradients(w.at[1].set(jnp.inf), x.at[1, 0, 2, 2, 1].set(jnp.nan))
  for one, other in zip(found, expected, strict=True):
    assert not jnp.isfinite(one[1]).all()
    for candidate in (0, 2):
      np.testing.assert_allclose(one[candidate], other[candidate], rtol=1e-5)


@pytest.mark.parametrize(
  ("width", "expected"),
  [(0, 0), (1, 1), (5, 8), (16, 16), (37, 64), (64, 64), (65, 128), (200, 256)],
)
def test_widths_that_fill_an_accelerator(width, expected, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert candidate_width(width) == expected
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  assert candidate_width(width) == width


@pytest.mark.parametrize("num_images", [1, 4, 7])
def test_kernel_gradients_of_any_number_of_images(num_images, monkeypatch):
  # The gradients are summed over at most four blocks of images, of which the last may be smaller.
  monkeypatch.setattr("gatprune_jax.kernels.convolution.kernel_gradient._BLOCK_BYTES", 1)
  xla, params, operands = problem("same", num_images=num_images)
  assert_same_values_and_gradients(
    lambda x, w: canonical_convolution(x, w, **params), xla, operands
  )


def test_the_kernel_gradient_of_no_outputs_is_zero():
  # A window of three rows does not fit into two rows, and the last case has no images.
  for strides, outputs in (((1, 1), (1, 0, 2, 5)), ((2, 2), (1, 0, 1, 5)), ((1, 1), (0, 2, 2, 5))):
    x, g = jnp.ones((outputs[0], 2, 4, 3)), jnp.ones(outputs)
    dw = kernel_gradient(x, g, (3, 3), strides, ((0, 0), (0, 0)), (1, 1), None)
    np.testing.assert_array_equal(dw, np.zeros((3, 3, 3, 5)))


@pytest.mark.parametrize("case", ["same", "strided", "depthwise"])
def test_kernels_of_many_places(case):
  xla, params, operands = problem(case, window=(8, 7), space=(9, 8))
  assert_same_values_and_gradients(
    lambda x, w: canonical_convolution(x, w, **params), xla, operands
  )


@pytest.mark.parametrize("convolution", [block_convolution, canonical_convolution])
def test_groups_are_joined_to_sets(convolution, monkeypatch):
  # Three of eight groups make a set, and the last set has two.
  monkeypatch.setattr("gatprune_jax.kernels.convolution.grouped._SET", 7)
  rng = np.random.default_rng(0)
  x, w = (
    jnp.asarray(rng.standard_normal(dims), jnp.float32) for dims in ((2, 5, 4, 16), (3, 3, 2, 24))
  )
  xla = lambda x, w: lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=8
  )
  (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
  ours = lambda x, w: convolution(x, w, **eqn.params)
  assert_same_values_and_gradients(ours, xla, (x, w))
  assert len(convolutions(ours, x, w)) == 3


@pytest.mark.parametrize("convolution", [block_convolution, canonical_convolution])
def test_no_groups_are_left_to_xla(convolution):
  # XLA's CPU backend is slow at groups, above all at the gradients of their kernels.
  for case in ("grouped", "depthwise"):
    xla, params, operands = problem(case)
    loss = lambda fn: jax.value_and_grad(lambda x, w, fn=fn: (fn(x, w) ** 2).sum(), (0, 1))
    grouped = lambda fn, operands=operands, loss=loss: [
      params
      for params, _ in convolutions(loss(fn), *operands)
      if (params["feature_group_count"], params["batch_group_count"]) != (1, 1)
    ]
    assert len(grouped(xla)) == 3
    assert not grouped(lambda x, w, params=params: convolution(x, w, **params))


@pytest.mark.parametrize("case", ["same", "strided"])
def test_canonical_in_gradient_steps_of_a_loop(case):
  xla, params, (x, w) = problem(case)

  def descend(fn, w):
    loss = lambda w: (fn(x, w) ** 2).mean()
    step = lambda w, _: (w - 0.1 * jax.grad(loss)(w), loss(w))
    return lax.scan(step, w, length=4)

  ours = lambda x, w: canonical_convolution(x, w, **params)
  weights = jnp.stack([w, w + 1, w + 2])
  one, other = (jax.jit(jax.vmap(lambda w, fn=fn: descend(fn, w)))(weights) for fn in (ours, xla))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, other)


@pytest.mark.parametrize("case", ["same", "strided and dilated"])
def test_canonical_has_second_derivatives(case):
  xla, params, operands = problem(case)

  def curvature(fn):
    inner = jax.grad(lambda x, w: (fn(x, w) ** 3).mean(), argnums=(0, 1))
    return jax.grad(lambda *args: sum((g**2).sum() for g in inner(*args)), argnums=(0, 1))(
      *operands
    )

  one, other = curvature(lambda x, w: canonical_convolution(x, w, **params)), curvature(xla)
  for a, b in zip(one, other, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("convolution", FORMS)
def test_one_and_three_axes(convolution):
  for layout, shape, window in (
    (("NWC", "WIO", "NWC"), (2, 9, 3), (3, 3, 5)),
    (("NDHWC", "DHWIO", "NDHWC"), (2, 4, 5, 6, 3), (3, 2, 1, 3, 4)),
  ):
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.standard_normal(dims), jnp.float32) for dims in (shape, window))
    xla = lambda x, w, layout=layout: lax.conv_general_dilated(
      x, w, (2,) * (x.ndim - 2), "SAME", dimension_numbers=layout
    )
    (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
    ours = lambda x, w, params=eqn.params: convolution(x, w, **params)
    assert_same_values_and_gradients(ours, xla, (x, w))


def test_sums_in_a_wider_type():
  x, w = jnp.ones((1, 4, 4, 3), jnp.bfloat16), jnp.full((3, 3, 3, 2), 0.5, jnp.bfloat16)
  xla = lambda x, w: lax.conv_general_dilated(
    x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, preferred_element_type=jnp.float32
  )
  (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
  ours = lambda x, w: canonical_convolution(x, w, **eqn.params)
  assert ours(x, w).dtype == jnp.float32
  np.testing.assert_allclose(ours(x, w), xla(x, w), rtol=1e-6)
  dx, dw = jax.grad(lambda x, w: ours(x, w).sum(), argnums=(0, 1))(x, w)
  assert dx.dtype == dw.dtype == jnp.bfloat16
  # Both outputs read the middle of the image at all nine offsets: 9 * 2 * 0.5. The middle of the
  # kernel reads all sixteen positions.
  assert dx[0, 1, 1, 0] == 9
  assert dw[1, 1, 0, 0] == 16


@pytest.mark.parametrize("space", [(4, 4), (12, 8), (9, 12)])
def test_every_choice_is_the_convolution(space):
  xla, params, operands = problem("strided", space=space)
  for chosen in (candidate_convolution(), scoring_convolution()):
    assert_same_values_and_gradients(lambda x, w, fn=chosen: fn(x, w, **params), xla, operands)
