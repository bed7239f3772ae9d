"""Masks the channels of a network instead of removing them.

Masking keeps every array at its full shape, so that it works under vmap and is differentiable in
the mask.
"""

from collections.abc import Callable
from typing import Any

import jax

from gatprune_jax.channels.graph import ChannelGraph, check_mask_shape
from gatprune_jax.channels.interpreter import Convolution, Interpreter
from gatprune_jax.channels.tracing.function import check_arguments
from gatprune_jax.channels.tracing.relabelling import bind


def masked(
  graph: ChannelGraph, fn: Callable, conv: Convolution | None = None
) -> Callable[..., Any]:
  """Returns fn with a mask over channels: `masked_fn(variables, mask, *args)`.

  The input of every layer that sums over channels is multiplied by `mask[channel]`, so that a
  removed channel contributes to no sum. With a mask of zeros and ones, the masked function computes
  what the compact network computes.

  The masked function works under jit, vmap and grad. Each call traces fn again, so call the masked
  function under jit.

  Args:
    graph: the channels that `trace` returned for the same variables.
    fn: the function to mask. Its first argument is the variables. It may be the network in eval
      mode or in train mode, a loss, or any other traceable function of the variables.
    conv: replaces `jax.lax.conv_general_dilated` in every convolution of fn. It is called with
      the two operands and the primitive's parameters as keywords. None keeps XLA's convolution.

  Returns:
    A function of variables, mask (bool or float `[num_channels]`, 1 = keep) and fn's further
    arguments.

  Raises:
    InputError: the returned function is called with a mask of another shape, with variables of
      another structure, or with flags or keywords.
  """

  def masked_fn(variables: Any, mask: jax.Array, *args: Any, **keywords: Any) -> Any:
    check_arguments(args, keywords)
    check_mask_shape(mask, graph.num_channels)
    binding = bind(graph, fn, (variables, *args))
    interpreter = Interpreter(
      binding.classes, binding.channel_of, mask=jax.numpy.asarray(mask, float), conv=conv
    )
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  return masked_fn
