"""Adds up the products of every layer's inputs while a network is evaluated."""

from typing import Any

import jax
import jax.numpy as jnp

from gatprune_jax.channels.compensation.readers import Reader
from gatprune_jax.channels.interpreter import Interpreter
from gatprune_jax.channels.tracing.labelling import Step
from gatprune_jax.channels.tracing.loops import LOOPS
from gatprune_jax.channels.tracing.relabelling import Binding


class Observer(Interpreter):
  """Evaluates a program and adds up x x^T for the inputs x of its layers.

  Args:
    binding: the labelled program.
    readers: the kernels whose layers are observed.
  """

  def __init__(self, binding: Binding, readers: tuple[Reader, ...]):
    super().__init__(binding.classes, binding.channel_of)
    self._readers = {reader.leaf: reader for reader in readers}
    self._sums: dict[int, tuple[jax.Array, float]] = {}

  def result(self) -> tuple[tuple[jax.Array, float], ...]:
    """Returns for each reader the sum of x x^T, `[groups, n, n]`, and the number of x in it."""
    return tuple(self._sums[leaf] for leaf in self._readers)

  def _masked_operands(self, step: Step, values: list[Any]) -> list[Any]:
    reader = self._readers.get(step.leaf)
    if reader is not None:
      x = _as_rows(step, values[step.contraction.operand], reader)  # [rows, groups, n]
      gram, count = self._sums.get(step.leaf, (0.0, 0.0))
      self._sums[step.leaf] = gram + jnp.einsum("rgn,rgm->gnm", x, x), count + float(len(x))
    return values

  def _call(self, step: Step, values: list[Any]) -> list[Any]:
    if step.eqn.primitive.name in LOOPS:
      return super()._call(step, values)
    # Nothing is differentiated, so the bodies of all other calls are evaluated as they are.
    return self.run(step.body, values)


def _as_rows(step: Step, x: jax.Array, reader: Reader) -> jax.Array:
  """Returns a layer's inputs at all positions that it reads, `[rows, groups, n]`.

  They are float32, or float64 where the layer computes in float64.
  """
  where = step.contraction
  if step.eqn.primitive.name == "conv_general_dilated":
    dims, strides = step.eqn.params["dimension_numbers"], step.eqn.params["window_strides"]
    kernel = step.eqn.invars[where.kernel].aval.shape
    for axis, of_kernel, stride in zip(dims.lhs_spec[2:], dims.rhs_spec[2:], strides, strict=True):
      if kernel[of_kernel] == 1:  # such a window skips positions
        x = jax.lax.slice_in_dim(x, 0, x.shape[axis], stride, axis)
  x = jnp.moveaxis(x, where.axis, -1)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  x = x.reshape(-1, reader.num_groups, x.shape[-1] // reader.num_groups)
  if reader.bias is not None:
    x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)
  return x
