"""A masked ResNet-20 in eager PyTorch, as one would write it without this library.

Benchmarks compare the library's scoring and training of masked networks with this module.
"""

from collections.abc import Callable, Sequence
import itertools

import jax
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}

torch.backends.cudnn.benchmark = True  # shapes are fixed: cuDNN picks the fastest kernels


def device() -> torch.device:
  """Returns the PyTorch device of the kind that JAX computes on: "cuda" or "cpu"."""
  return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


class _Block(nn.Module):
  def __init__(self, width_in: int, width: int, stride: int):
    super().__init__()
    self.first = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
    self.norm_first = nn.BatchNorm2d(width)
    self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
    self.norm_second = nn.BatchNorm2d(width)
    self.stride, self.padding = stride, (width - width_in) // 2

  def forward(self, x, mask_inner, mask_outer):
    y = F.relu(self.norm_first(self.first(x))) * mask_inner
    y = self.norm_second(self.second(y))
    if self.padding:  # shortcuts of option A
      padding = (0, 0, 0, 0, self.padding, self.padding)
      x = F.pad(x[:, :, :: self.stride, :: self.stride], padding)
    return F.relu(x + y) * mask_outer


class MaskedResNet20(nn.Module):
  """The CIFAR ResNet-20 of `gatprune_jax.models`, with activations multiplied by masks."""

  def __init__(self):
    super().__init__()
    self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
    self.norm = nn.BatchNorm2d(16)
    widths = [16] + [width for width in (16, 32, 64) for _ in range(3)]
    self.blocks = nn.ModuleList(
      _Block(before, after, 1 if before == after else 2)
      for before, after in itertools.pairwise(widths)
    )
    self.head = nn.Linear(64, 10)
    self.mask_widths = [16] + [width for width in widths[1:] for _ in range(2)]

  def forward(self, x, masks):
    """Computes logits `[n, 10]`.

    Args:
      x: images `[n, 3, H, W]`.
      masks: one mask `[1, width, 1, 1]` for each width of `mask_widths`.
    """
    x = F.relu(self.norm(self.stem(x))) * masks[0]
    for block, inner, outer in zip(self.blocks, masks[1::2], masks[2::2], strict=True):
      x = block(x, inner, outer)
    return self.head(x.mean((2, 3)))


def scorer(
  num_masks: int, x: np.ndarray, calibration: np.ndarray, batch: int, layout: str, dtype: str
) -> Callable[[], list[float]]:
  """Returns a function that scores random masks in turn.

  For each mask it measures batch-norm statistics on the calibration images, then accuracy on x.

  Args:
    num_masks: number of masks.
    x: images `[n, H, W, 3]`.
    calibration: images `[m, H, W, 3]`.
    batch: images in one forward pass.
    layout: a key of `FORMATS`.
    dtype: "bfloat16" computes under autocast, "float32" does not.
  """
  network = MaskedResNet20().to(device(), memory_format=FORMATS[layout])
  norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
  for norm in norms:
    norm.momentum = None  # makes the statistics means over all batches
  masks = [_random_masks(network.mask_widths, seed) for seed in range(num_masks)]
  images, others = (_images(rows, layout).split(batch) for rows in (x, calibration))

  def accuracy(mask):
    for norm in norms:
      norm.reset_running_stats()
    network.train()
    for part in others:
      network(part, mask)
    network.eval()
    return sum((network(part, mask).argmax(1) == 0).sum() for part in images) / len(x)

  def run():
    with torch.inference_mode(), _autocast(dtype):
      return torch.stack([accuracy(mask) for mask in masks]).tolist()

  return run


def trainer(
  num_candidates: int, x: np.ndarray, layout: str, dtype: str
) -> Callable[[], list[float]]:
  """Returns a function that takes one SGD step on each of several masked networks in turn.

  SGD has Nesterov momentum; each network has a random mask and weights of its own.

  Args:
    num_candidates: number of networks.
    x: images `[n, H, W, 3]`, the batch of the step.
    layout: a key of `FORMATS`.
    dtype: "bfloat16" computes under autocast, "float32" does not.
  """
  images, labels = _images(x, layout), torch.zeros(len(x), dtype=torch.long, device=device())
  candidates = []
  for seed in range(num_candidates):
    network = MaskedResNet20().to(device(), memory_format=FORMATS[layout]).train()
    optimizer = torch.optim.SGD(
      network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    candidates.append((network, optimizer, _random_masks(network.mask_widths, seed)))

  def step(network, optimizer, mask):
    optimizer.zero_grad()
    with _autocast(dtype):
      loss = F.cross_entropy(network(images, mask), labels)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return lambda: torch.stack([step(*candidate) for candidate in candidates]).tolist()


def _autocast(dtype: str) -> torch.autocast:
  return torch.autocast(device().type, torch.bfloat16, enabled=dtype == "bfloat16")


def _random_masks(widths: Sequence[int], seed: int) -> list[torch.Tensor]:
  """Makes masks `[1, width, 1, 1]` that keep half of the channels on average."""
  generator = torch.Generator().manual_seed(seed)
  return [
    (torch.rand(width, generator=generator) < 0.5).float().view(1, width, 1, 1).to(device())
    for width in widths
  ]


def _images(x: np.ndarray, layout: str) -> torch.Tensor:
  """Converts NHWC images to a tensor `[n, C, H, W]` on the device, in a layout of `FORMATS`."""
  images = torch.tensor(x).permute(0, 3, 1, 2)
  return images.contiguous(memory_format=FORMATS[layout]).to(device())
