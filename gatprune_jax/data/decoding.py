"""Decodes image files to arrays of pixels with Pillow, and crops and resizes them."""

import io

import numpy as np
from PIL import Image

# Exceptions that Pillow raises on files that are damaged, truncated, or not images.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

# Pillow's modes with at most 8 bits per colour channel.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_CENTRE_SHARE = 0.875  # share of the shorter side that the centre crop keeps
_ASPECT = 4 / 3  # largest aspect ratio of a random crop, either way


def decode(file: bytes) -> np.ndarray:
  """Decodes the whole image to uint8 `[H, W, 3]`."""
  return np.asarray(_open(file))


def centre_crop(file: bytes, side: int) -> np.ndarray:
  """Crops the centre square and resizes it to uint8 `[side, side, 3]`.

  The square's side is 0.875 of the image's shorter side.
  """
  image = _open(file)
  width = _CENTRE_SHARE * min(image.size)
  left, top = ((length - width) / 2 for length in image.size)
  return _resized(image, side, (left, top, left + width, top + width))


def random_crop(file: bytes, side: int, area: float, rng: np.random.Generator) -> np.ndarray:
  """Crops a random rectangle and resizes it to uint8 `[side, side, 3]`.

  The rectangle's share of the image's area is uniform in [area, 1] and its aspect ratio log-uniform
  in [3/4, 4/3]. A side that would be longer than the image's side is shortened to it (after Szegedy
  et al. 2015, arXiv 1409.4842, section 6).

  Args:
    file: the encoded image.
    side: side of the result, pixels.
    area: smallest share of the image's area, in (0, 1].
    rng: random number generator that draws the rectangle.
  """
  image = _open(file)
  share = rng.uniform(area, 1) * image.width * image.height
  aspect = np.exp(rng.uniform(-np.log(_ASPECT), np.log(_ASPECT)))
  width = min(image.width, np.sqrt(share * aspect))
  height = min(image.height, np.sqrt(share / aspect))
  left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
  return _resized(image, side, (left, top, left + width, top + height))


def _open(file: bytes) -> Image.Image:
  image = Image.open(io.BytesIO(file))
  # `convert` clips values of more than 8 bits per colour channel instead of scaling them. So 16-bit
  # grey images are scaled here, and other modes of more than 8 bits are refused.
  if image.mode.startswith("I;16"):
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  elif image.mode not in _MODES:
    raise ValueError(f"its pixels have mode {image.mode}: save it with 8 bits a channel")
  return image.convert("RGB")


def _resized(image: Image.Image, side: int, box: tuple[float, ...]) -> np.ndarray:
  return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))
