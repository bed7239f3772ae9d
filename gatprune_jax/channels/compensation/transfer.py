"""Closed-form compensation: kernels take over what the removed inputs of a layer contributed.

A layer computes W^T x from its input channels x. If the channels R are removed and P are kept, the
removed inputs are predicted from the kept ones by ridge regression on a few hundred images, and the
kernel's rows of the kept channels take over the prediction:

  B = (G_PP + r I)^-1 G_PR            W'_P = W_P + B W_R            G = E[x x^T]

The expectation is over images and positions of the dense network. With the mask m as an argument,
M = diag(m) and shapes that do not depend on the mask:

  T = M + M Z (I - M),   (M G M + r I + (I - M)) Z = M G,           W' = T W

A layer with a bias regresses on a constant as well, and adds the constant's part to its bias. The
idea is that of layer-wise reconstruction (Luo et al. 2017, arXiv 1707.06342; Frantar & Alistarh
2022, arXiv 2208.11580).
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gatprune_jax.channels.compensation.observing import Observer
from gatprune_jax.channels.compensation.readers import Reader, find_readers
from gatprune_jax.channels.graph import ChannelGraph, check_mask_shape
from gatprune_jax.channels.tracing.relabelling import bind
from gatprune_jax.errors import InputError

RIDGE = 1e-3  # r as a share of the mean of G's diagonal
_BATCH = 64  # images that are evaluated at once


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("grams", "ids", "ridge"),
  meta_fields=("num_channels", "readers"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class Compensation:
  """What is measured once on the dense network; a pytree, so that it can be an argument under jit.

  Attributes:
    grams: G of each reader, `[groups, n, n]`, or `[groups, n + 1, n + 1]` with a last row
      and column for the constant where the layer has a bias.
    ids: the channel of each input of each reader, int `[n]`, or FROZEN.
    ridge: r, as a share of the mean diagonal of G.
    num_channels: N, the number of the network's channels.
    readers: the kernels that are compensated.
  """

  grams: tuple[jax.Array, ...]
  ids: tuple[np.ndarray, ...]
  ridge: float
  num_channels: int
  readers: tuple[Reader, ...]

  def __call__(self, variables: Any, mask: jax.Array) -> Any:
    """Returns the variables with which the network under a mask is nearest to the dense one.

    It works under jit and vmap, and is differentiable in the variables. Rows of removed channels
    become zero.

    Args:
      variables: of the dense network, or of one near it.
      mask: zeros and ones `[num_channels]`, 1 = keep.
    """
    check_mask_shape(mask, self.num_channels)
    leaves = jax.tree.leaves(variables)
    kept = jnp.append(jnp.asarray(mask, float), 1.0)
    for reader, gram, ids in zip(self.readers, self.grams, self.ids, strict=True):
      here = kept[ids]
      if reader.bias is not None:
        here = jnp.append(here, 1.0)
      transfer = jnp.stack([_transfer(one, here, self.ridge) for one in gram])
      kernel, shift = _handed_over(reader, leaves[reader.leaf], transfer)
      leaves[reader.leaf] = kernel
      if reader.bias is not None:
        leaves[reader.bias] = leaves[reader.bias] + shift.astype(leaves[reader.bias].dtype)
    return jax.tree.unflatten(jax.tree.structure(variables), leaves)


def measure_compensation(
  graph: ChannelGraph, fn: Callable, variables: Any, images: Any, ridge: float = RIDGE
) -> Compensation:
  """Measures the matrices G of all layers that sum over channels.

  Layers without a kernel among the variables, depthwise convolutions, layers whose input has more
  than 4,096 elements, and kernels that are used in several roles keep their weights. A kernel that
  several layers share has the sum of their matrices.

  Args:
    graph: the channels that `trace` returned for these variables.
    fn: the network in eval mode, `fn(variables, images) -> outputs`.
    variables: of the dense network.
    images: inputs `[n, ...]`, without labels.
    ridge: r, as a share of the mean diagonal of G.

  Raises:
    InputError: if there are no images, or the ridge is negative.
  """
  num = len(jax.tree.leaves(images)[0]) if jax.tree.leaves(images) else 0
  if num == 0:
    raise InputError("compensation needs images: give some hundred inputs, without labels")
  if ridge < 0:
    raise InputError(f"ridge is {ridge}: it must not be negative")
  size = min(_BATCH, num)
  take = lambda start, stop: jax.tree.map(lambda leaf: jnp.asarray(leaf[start:stop]), images)
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), take(0, size))
  readers = find_readers(graph, bind(graph, fn, (variables, shapes)).program)

  @jax.jit
  def sums(variables, some):
    binding = bind(graph, fn, (variables, some))
    observer = Observer(binding, readers)
    observer.run(binding.program, jax.tree.leaves((variables, some)))
    return observer.result()

  totals = None
  for start in range(0, num, size):  # the last call may be compiled for fewer images
    new = sums(variables, take(start, start + size))
    totals = new if totals is None else jax.tree.map(jnp.add, totals, new)
  grams = tuple(gram / count for gram, count in totals)
  ids = tuple(graph.leaves[reader.leaf].axes[reader.axis] for reader in readers)
  return Compensation(grams, ids, ridge, graph.num_channels, readers)


def compensate(
  graph: ChannelGraph,
  fn: Callable,
  variables: Any,
  mask: Any,
  images: Any,
  ridge: float = RIDGE,
) -> Any:
  """Returns variables with which the network under a mask is nearest to the dense network.

  See `measure_compensation`, and `Compensation` for many masks.

  Args:
    graph: the channels that `trace` returned for these variables.
    fn: the network in eval mode, `fn(variables, images) -> outputs`.
    variables: of the dense network.
    mask: zeros and ones `[num_channels]`, 1 = keep.
    images: inputs `[n, ...]`, without labels; some hundred.
    ridge: r, as a share of the mean diagonal of G.

  Raises:
    InputError: if there are no images, the ridge is negative, or a matrix is singular because the
      ridge is zero.
  """
  measured = measure_compensation(graph, fn, variables, images, ridge)
  new = jax.jit(measured.__call__)(variables, jnp.asarray(mask))
  if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(new)):
    raise InputError(
      f"the kept inputs of a layer depend on each other, and ridge is {ridge}: give a positive "
      "ridge, or more images"
    )
  return new


def _transfer(gram: jax.Array, kept: jax.Array, ridge: float) -> jax.Array:
  """Returns T `[n, n]`: row p holds what the kept input p takes over of every input."""
  n = len(gram)
  removed, identity = 1 - kept, jnp.eye(n, dtype=gram.dtype)
  strength = ridge * jnp.trace(gram) / n
  within = kept[:, None] * gram * kept[None]
  matrix = within + jnp.diag(strength * kept + removed)
  solution = _solve(matrix, kept[:, None] * gram * removed[None])
  return identity * kept[None] + kept[:, None] * solution


# Batches of factorisations wait for threads of the CPU client on which other devices may wait too.
@jax.custom_batching.sequential_vmap
def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
  return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), right)


def _handed_over(
  reader: Reader, kernel: jax.Array, transfer: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
  """Returns T W, and for a layer with a bias what the constant adds to it, `[n_out]`.

  Args:
    reader: which axes of the kernel are its inputs and outputs.
    kernel: W.
    transfer: T of each group, `[groups, n, n]` or `[groups, n + 1, n + 1]`.
  """
  num = kernel.shape[reader.axis]
  rows = jnp.moveaxis(kernel, reader.axis, 0)  # [n, ...]
  if reader.num_groups > 1:
    out = reader.out_axis + (reader.out_axis < reader.axis)
    rows = jnp.moveaxis(rows, out, -1)
    grouped = rows.reshape(*rows.shape[:-1], reader.num_groups, -1)
    new = jnp.einsum("gpn,n...go->p...go", transfer, grouped).reshape(*rows.shape)
    return jnp.moveaxis(jnp.moveaxis(new, -1, out), 0, reader.axis).astype(kernel.dtype), None
  matrix = transfer[0].astype(kernel.dtype)
  new = jnp.tensordot(matrix[:, :num], rows, axes=1)  # [n or n + 1, ...]
  shift = None
  if reader.bias is not None:
    out = reader.out_axis + (reader.out_axis < reader.axis)
    shift = new[num].sum(tuple(i for i in range(new.ndim - 1) if i != out - 1))
  return jnp.moveaxis(new[:num], 0, reader.axis), shift
