"""How much of every channel the kept channels explain, by the matrices of the compensation.

A layer reads the inputs x, with G = E[x x^T] over images and positions of the dense network. Of
input j, ridge regression on the kept inputs P leaves a residual:

  b_j = (G_PP + r I)^-1 G_Pj            residual_j = E[(x_j - b_j . x_P)^2]

A channel i is carried by some inputs of some layers. The share of it that is explained is

  R2_i = 1 - sum_j residual_j / sum_j E[x_j^2]        over all inputs j that carry channel i

where P leaves out the inputs of channel i itself. So R2 of a removed channel tells how much of it
the compensation hands over to the kept ones, and R2 of a kept channel how much the others would
take over if it were removed as well.
"""

import numpy as np

from gatprune_jax.channels.compensation.transfer import Compensation
from gatprune_jax.channels.graph import FROZEN, check_mask_shape

# The matrices are sums in float32. A smaller ridge would only make rounding errors larger.
_SMALLEST_RIDGE = float(np.finfo(np.float32).eps)


def explained(compensation: Compensation, mask: np.ndarray) -> np.ndarray:
  """Returns R2 of every channel under a mask, float64 `[N]` in [0, 1].

  A channel that is zero on all images counts as explained, 1. A channel that no compensated layer
  reads has NaN.

  Args:
    compensation: the matrices G, measured on the dense network.
    mask: zeros and ones `[N]`, 1 = keep.

  Raises:
    InputError: if the mask has another shape.
  """
  check_mask_shape(mask, compensation.num_channels)
  kept = np.append(np.asarray(mask, bool), True)  # FROZEN is -1, and such inputs are always kept
  residuals, energies, read = np.zeros((3, compensation.num_channels + 1))
  ridge = max(float(compensation.ridge), _SMALLEST_RIDGE)
  for reader, grams, ids in zip(
    compensation.readers, compensation.grams, compensation.ids, strict=True
  ):
    # The constant of a layer with a bias is the last input. It is kept, and is no channel.
    channels = np.asarray(ids) if reader.bias is None else np.append(ids, FROZEN)
    for gram in np.asarray(grams, np.float64):
      residual = _residuals(gram, channels, kept[channels], ridge)
      np.add.at(residuals, channels, residual)
      np.add.at(energies, channels, np.diag(gram))
      np.add.at(read, channels, 1.0)
  share = np.ones(len(energies))
  np.divide(residuals, energies, out=share, where=energies > 0)
  share[energies == 0] = 0.0
  return np.where(read > 0, np.clip(1 - share, 0, 1), np.nan)[:-1]


def _residuals(
  gram: np.ndarray, channels: np.ndarray, kept: np.ndarray, ridge: float
) -> np.ndarray:
  """Returns the residual of every input of a layer, float64 `[n]`.

  Args:
    gram: G, `[n, n]`.
    channels: the channel of each input `[n]`.
    kept: whether each input is kept, bool `[n]`.
    ridge: r, as a share of the mean diagonal of G.
  """
  strength = max(ridge * np.trace(gram) / len(gram), np.finfo(np.float64).tiny)
  within = gram[np.ix_(kept, kept)]
  inverse = np.linalg.inv(within + strength * np.eye(len(within)))
  residuals = np.empty(len(gram))
  across = gram[np.ix_(kept, ~kept)]
  weights = inverse @ across
  cross = (weights * (within @ weights - 2 * across)).sum(0)
  residuals[~kept] = np.diag(gram)[~kept] + cross
  # Without the inputs S of a kept channel, x_S is predicted from the other kept inputs. By the
  # inverse of a partitioned matrix, the error is x_P^T V with V = K_PS K_SS^-1, for the inverse K,
  # and its energy is the diagonal of V^T G_PP V.
  places, of_kept, energy = np.flatnonzero(kept), channels[kept], inverse @ within @ inverse
  for channel in np.unique(of_kept):
    own = np.flatnonzero(of_kept == channel)
    block = np.ix_(own, own)
    scale = np.linalg.inv(inverse[block])
    residuals[places[own]] = np.diag(scale @ energy[block] @ scale)
  return residuals
