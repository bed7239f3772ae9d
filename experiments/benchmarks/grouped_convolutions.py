"""Benchmark of convolutions in groups, as candidates and scored masks compute them on a CPU."""

from collections.abc import Callable, Iterator
import functools
from typing import NamedTuple

import jax

from experiments.benchmarks.measuring import Measurement, alternating
from experiments.benchmarks.peers import Skipped
from gatprune_jax.kernels.convolution import canonical_convolution

_IMAGES = 32


class Case(NamedTuple):
  """A convolution with windows of 3x3, as in MobileNetV2 and in ResNeXt."""

  channels: int  # of the input and of the output
  groups: int
  side: int  # pixels of the images


_CASES = (Case(96, 96, 16), Case(576, 576, 4), Case(128, 32, 8))


def grouped_convolutions() -> Iterator[Measurement]:
  """Compares convolutions in groups, and their gradients in both operands, with those of XLA.

  Raises:
    Skipped: on accelerators, where XLA's convolutions in groups are used.
  """
  if jax.default_backend() != "cpu":
    raise Skipped("accelerators use XLA's convolutions in groups")
  for case in _CASES:
    channels, groups, side = case
    x = jax.random.normal(jax.random.key(0), (_IMAGES, side, side, channels))
    w = jax.random.normal(jax.random.key(1), (3, 3, channels // groups, channels))
    xla = functools.partial(
      jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME",
      feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    (eqn,) = jax.make_jaxpr(xla)(x, w).eqns
    forms = (functools.partial(canonical_convolution, **eqn.params), xla)
    for name, of in (("", lambda fn: fn), ("with gradients: ", _gradients)):
      calls = [functools.partial(jax.jit(of(fn)), x, w) for fn in forms]
      ours, theirs = alternating(*calls, repeats=3)
      what = f"{name}{channels} channels in {groups} groups, {_IMAGES} images {side}x{side}"
      yield Measurement(what, ours, "XLA's convolution", theirs, theirs / ours, "3x3")


def _gradients(fn: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
  return jax.grad(lambda x, w: (fn(x, w) ** 2).sum(), (0, 1))
