"""Tests that published CIFAR-10 checkpoints reach their accuracy, where the files are at hand.

The folder GATPRUNE_DATA holds the checkpoints of github.com/akamaster/pytorch_resnet_cifar10 and
the test images re-encoded as JPEG, on which these networks reach 81.0 and 83.2 %, instead of 91.8
and 93.6 % on the originals.
"""

import io
import os
import pathlib

import jax
import numpy as np
import pytest

from gatprune_jax.models import cifar_resnet, eval_function, load_torch

DATA = pathlib.Path(os.environ.get("GATPRUNE_DATA", "GATPRUNE_DATA"))
# Mean and standard deviation of the input. The checkpoints were trained with those of ImageNet.
MEAN = np.array([[[0.485, 0.456, 0.406]]])
STD = np.array([[[0.229, 0.224, 0.225]]])
BATCH = 500


def read_test_images():
  image = pytest.importorskip("PIL.Image")
  packed = np.load(DATA / "cifar10_jpeg.npz")
  blob, ends = packed["test_bytes"].tobytes(), np.cumsum(packed["test_len"])
  files = (blob[end - size : end] for end, size in zip(ends, packed["test_len"], strict=True))
  pixels = (np.asarray(image.open(io.BytesIO(file))) for file in files)
  normalised = [((p / 255 - MEAN) / STD).astype(np.float32) for p in pixels]
  return np.stack(normalised), packed["test_y"]


@pytest.mark.parametrize(("depth", "percent"), [(20, 81.0), (56, 83.2)])
def test_accuracy_of_published_checkpoints(depth, percent):
  checkpoint = DATA / f"cifar10_resnet{depth}.th"
  for file in (checkpoint, DATA / "cifar10_jpeg.npz"):
    if not file.exists():
      pytest.skip(f"{file} is not here: set GATPRUNE_DATA to the folder that has it")
  x, y = read_test_images()
  module = cifar_resnet(depth, 10)
  like = jax.eval_shape(module.init, jax.random.key(0), x[:1])
  variables = load_torch(checkpoint, like)
  apply = jax.jit(eval_function(module))
  predicted = [apply(variables, x[i : i + BATCH]).argmax(-1) for i in range(0, len(x), BATCH)]
  accuracy = 100 * np.mean(np.concatenate(predicted) == y)
  assert len(y) == 10_000
  assert accuracy == pytest.approx(percent, abs=0.3)
