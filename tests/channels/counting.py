"""Counts of multiply-adds, taken from the jaxpr of a function.

The tests compare the costs of the channel graph with these independent counts.
"""

import math

import jax


def count_macs(fn, *args):
  """Returns the multiply-adds of convolutions and dot products for one example.

  Args:
    fn: the function to count.
    *args: its arguments; args[1] is the batch `[B, ...]`.
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr) / args[1].shape[0]


def _count(jaxpr):
  total = 0
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        # A scan runs its body `length` times.
        total += _count(inner) * eqn.params.get("length", 1)
    if branches := eqn.params.get("branches"):
      total += max(_count(branch.jaxpr) for branch in branches)
    if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
      total += _multiply_adds(eqn)
  return total


def _multiply_adds(eqn):
  outputs = math.prod(eqn.outvars[0].aval.shape)
  if eqn.primitive.name == "conv_general_dilated":
    kernel, dims = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
    return outputs * math.prod(kernel[k] for k in dims.rhs_spec[1:])
  (contracted, _), _ = eqn.params["dimension_numbers"]
  shape = eqn.invars[0].aval.shape
  return outputs * math.prod(shape[k] for k in contracted)
