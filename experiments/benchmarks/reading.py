"""Benchmark of making training batches of photographs, against PyTorch's DataLoader with Pillow."""

import functools
import io
import itertools
import os

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from experiments.benchmarks.measuring import Measurement, alternating
from experiments.benchmarks.peers import require
from gatprune_jax.data import Photographs
from gatprune_jax.data.decoding import random_crop
from gatprune_jax.data.encoded_files import Unreadable

_NUM, _BATCH, _SIDE, _AREA = 512, 64, 224, 0.08
_SIZE = (500, 375)  # width and height of a typical ImageNet photograph, pixels


class _InMemory:
  """JPEG files in memory, so that decoding, cropping and batching are measured, not the disk."""

  def __init__(self, files: list[bytes]):
    self._files = files

  def __len__(self) -> int:
    return len(self._files)

  def read(self, index: int) -> tuple[bytes, int]:
    return self._files[index], 0

  def name(self, index: int) -> str:
    return f"photograph {index}"


def reading() -> list[Measurement]:
  """Measures random crops of 224 x 224 pixels in batches of 64, in images a second and core."""
  require("torch")
  files, cores = _photographs(), os.cpu_count() or 1
  photographs = Photographs(_InMemory(files), np.zeros(_NUM, np.int32), _SIDE, Unreadable(0))
  order = np.arange(_NUM).reshape(-1, _BATCH)
  ours, theirs = alternating(
    lambda: [x.shape for x in photographs.batches(order, 0, 0, _AREA)],
    functools.partial(_with_torch, files, cores),
    repeats=5,
  )
  speed = lambda seconds: f"{_NUM / seconds / cores:.0f}"
  note = f"{speed(ours)} images a second and core against {speed(theirs)}"
  name = f"read {_NUM} photographs {_SIZE[0]}x{_SIZE[1]}, crops of {_SIDE}"
  return [
    Measurement(name, ours, f"torch DataLoader, {cores} workers", theirs, theirs / ours, note)
  ]


def _photographs() -> list[bytes]:
  """Makes JPEG files of rectangles of scikit-learn's two photographs, enlarged to `_SIZE`."""
  rng, whole, files = np.random.default_rng(0), load_sample_images().images, []
  for picture in itertools.islice(itertools.cycle(whole), _NUM):
    top, left = rng.integers(0, 140), rng.integers(0, 240)
    image = Image.fromarray(picture[top : top + 280, left : left + 400]).resize(_SIZE)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    files.append(file.getvalue())
  return files


def _with_torch(files: list[bytes], workers: int) -> list[tuple[int, ...]]:
  """Makes the same crops by worker processes of PyTorch; returns the shapes of the batches."""
  import torch

  class Crops(torch.utils.data.Dataset):
    def __len__(self):
      return len(files)

    def __getitem__(self, index):
      rng = np.random.default_rng((0, index))
      # The crop is a read-only array, of which PyTorch would warn; `np.array` makes a copy.
      return np.array(random_crop(files[index], _SIDE, _AREA, rng))

  loader = torch.utils.data.DataLoader(
    Crops(), _BATCH, num_workers=workers, multiprocessing_context="fork"
  )
  return [tuple(x.shape) for x in loader]
