"""Networks with channels masked: the differentiable, vmappable stand-in for removing them."""

from collections.abc import Callable
from typing import Any

import jax

from gatprune_jax.channels.graph import ChannelGraph, check_mask_shape
from gatprune_jax.channels.interpreter import Convolution, Interpreter
from gatprune_jax.channels.tracing.relabelling import bind


def masked(
  graph: ChannelGraph, fn: Callable, conv: Convolution | None = None
) -> Callable[..., Any]:
  """Returns fn with a mask over channels: `masked_fn(variables, mask, *args)`.

  The input of every layer is multiplied by `mask[channel]`, so that no layer sees a removed
  channel. With zeros and ones it computes what the compact network computes.

  It works under jit, vmap and grad, for every function whose first argument is the variables
  (in eval or train mode, a loss, ...). Each call traces fn, so call it under jit.

  Args:
    graph: from `trace`, with the same variables.
    fn: the function to mask.
    conv: replaces `jax.lax.conv_general_dilated` in every convolution of fn, called with
      the two operands and the primitive's parameters as keywords. None keeps XLA's.

  Returns:
    A function of variables, mask (bool or float `[num_channels]`, 1 = keep) and fn's further
    arguments.

  Raises:
    InputError: when called with a mask of another shape, or variables of another structure.
  """

  def masked_fn(variables: Any, mask: jax.Array, *args: Any) -> Any:
    check_mask_shape(mask, graph.num_channels)
    binding = bind(graph, fn, (variables, *args))
    interpreter = Interpreter(
      binding.classes, binding.channel_of, mask=jax.numpy.asarray(mask, float), conv=conv
    )
    out = interpreter.run(binding.program, jax.tree.leaves((variables, *args)))
    return jax.tree.unflatten(binding.out_treedef, out)

  return masked_fn
