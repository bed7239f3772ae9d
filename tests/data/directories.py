"""Functions that write small data sets to disk, from real photographs and in users' formats."""

import functools
import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
import tensorflow_datasets as tfds

SPLITS = {
  "cifar10": ("train", "test"),
  "cifar100": ("train", "test"),
  "imagenet2012": ("train", "validation"),
}
# Number of classes of the data sets whose class names the stock builders would download.
_CLASS_NAMES = {"cifar10": 10, "cifar100": 100}


_photographs = functools.cache(lambda: load_sample_images().images)


def photograph(index: int, size: tuple[int, int] | None = None) -> Image.Image:
  """Returns a random rectangle of one of scikit-learn's two photographs.

  Args:
    index: determines the photograph and the rectangle.
    size: (width, height) to which the rectangle is resized, pixels; None leaves its size.
  """
  rng = np.random.default_rng(index)
  whole = _photographs()[index % 2]
  height, width = rng.integers(70, 250, 2)
  top, left = rng.integers(whole.shape[0] - height), rng.integers(whole.shape[1] - width)
  image = Image.fromarray(whole[top : top + height, left : left + width])
  return image.resize(size) if size else image


def encoded(image: Image.Image, file_format: str) -> bytes:
  """Returns the image as the bytes of a file; the format PNG keeps every pixel."""
  file = io.BytesIO()
  image.save(file, file_format)
  return file.getvalue()


def write_tfds(
  name: str, directory: str, counts: tuple[int, int], num_classes: int, side: int = 32
) -> None:
  """Writes the stock builder's directory with photographs as images, in array_record format.

  Args:
    name: "cifar10", "cifar100" or "imagenet2012".
    directory: the TFDS data directory.
    counts: numbers of images in the training and the test split.
    num_classes: image i has the label i % num_classes.
    side: height and width of CIFAR's images, pixels.
  """

  def examples(split, count):
    for i in range(count):
      index = i + 100_000 * (split != "train")
      if name == "imagenet2012":
        image, key = encoded(photograph(index), "JPEG"), "file_name"
      else:
        image, key = encoded(photograph(index, (side, side)), "PNG"), "id"
      example = {"image": io.BytesIO(image), "label": i % num_classes, key: f"{split}_{i}"}
      yield i, example | ({"coarse_label": 0} if name == "cifar100" else {})

  stock, given_name = tfds.builder_cls(name), name
  with tfds.core.registered.skip_registration():

    class Local(stock):
      name = given_name

      def _split_generators(self, dl_manager):
        for feature in ("label", "coarse_label"):
          if name in _CLASS_NAMES and feature in self.info.features:
            number = self.info.features[feature].num_classes
            self.info.features[feature].names = [str(label) for label in range(number)]
        return {
          split: examples(split, count) for split, count in zip(SPLITS[name], counts, strict=True)
        }

    builder = Local(data_dir=str(directory), file_format="array_record")
  builder.download_and_prepare()
