"""Loads a user's own images from the arrays of an npz file."""

import zipfile
import zlib

import numpy as np

from gatprune_jax.data.data_config import DataConfig
from gatprune_jax.data.splits import Dataset, Split, cut_in_four, measure_pixels
from gatprune_jax.errors import InputError


def npz(config: DataConfig, seed: int) -> Dataset:
  """Loads the arrays of one npz file, cut into parts by the seed.

  The file holds images `x` `[n, H, W, C]` or `[n, H, W]`, uint8 or float32, and labels `y` `[n]`,
  integers from 0 without a gap. uint8 images are scaled by the mean and standard deviation of the
  training part; float32 images are used as they are. The file may hold test images `x_test` and
  labels `y_test` of the same form; without them the test part is cut from `x` and `y`.

  Raises:
    InputError: if the file is not a readable npz file, if its arrays do not fit each other, or if a
      class has too few images for the parts.
  """
  path = config.data_dir
  if config.image_size:
    raise InputError(
      f"image_size is {config.image_size}: arrays are taken as they are, set it to 0"
    )
  try:
    with open(path, "rb") as file, np.load(file) as content:
      stored = {name: content[name] for name in content.files}
  except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f"data_dir {path!r} is not a readable npz file: {error}") from error
  images = _checked(stored, "x", "y", path)
  labels = np.unique(images.y)
  num_classes = len(labels)
  if len(gaps := np.flatnonzero(labels != np.arange(num_classes))):
    raise InputError(
      f"y in {path} has no image of class {gaps[0]}, but one of class {labels[-1]}: number the "
      "classes 0, 1, 2, ..."
    )
  if num_classes < 2:
    raise InputError(f"y in {path} has one class: it needs two or more")
  test = None
  if "x_test" in stored or "y_test" in stored:
    test = _checked(stored, "x_test", "y_test", path)
    if test.x.shape[1:] != images.x.shape[1:] or test.x.dtype != images.x.dtype:
      raise InputError(
        f"x_test in {path} has images {test.x.shape[1:]} {test.x.dtype}, not "
        f"{images.x.shape[1:]} {images.x.dtype} as x"
      )
    if (largest := int(test.y.max())) >= num_classes:
      raise InputError(
        f"y_test in {path} has label {largest}, which is out of range: labels are 0 to "
        f"{num_classes - 1}"
      )
  parts = cut_in_four(images, test, config.images, seed)
  scale = measure_pixels(parts[0].x) if images.x.dtype == np.uint8 else None
  return Dataset("npz", num_classes, *parts, scale)


def _checked(stored: dict[str, np.ndarray], x_name: str, y_name: str, path: str) -> Split:
  """Returns images `[n, H, W, C]` and labels int32 `[n]`, after checking both arrays."""
  if missing := {x_name, y_name} - stored.keys():
    raise InputError(
      f"{path} has no array {sorted(missing)[0]!r}, only {', '.join(sorted(stored))}: it needs "
      f"images {x_name!r} and labels {y_name!r}"
    )
  x, y = stored[x_name], stored[y_name]
  if x.ndim == 3:
    x = x[..., None]
  if x.ndim != 4 or 0 in x.shape or x.dtype not in (np.uint8, np.float32):
    raise InputError(
      f"{x_name} in {path} has shape {x.shape} and dtype {x.dtype}: it must be [n, H, W, C] or "
      "[n, H, W], uint8 or float32"
    )
  if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
    raise InputError(
      f"{y_name} in {path} has shape {y.shape} and dtype {y.dtype}: it must hold one integer for "
      f"each of the {len(x)} images"
    )
  for label in (y.min(), y.max()):
    if not 0 <= label <= np.iinfo(np.int32).max:
      raise InputError(f"{y_name} in {path} has label {label}: labels are 0, 1, 2, ...")
  if not np.isfinite(x).all():
    raise InputError(f"{x_name} in {path} holds values that are not finite")
  return Split(x, y.astype(np.int32))
