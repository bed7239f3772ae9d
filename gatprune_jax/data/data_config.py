"""The configuration of the images that an experiment uses."""

import dataclasses

from gatprune_jax.data.splits import Sizes
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which images are used, and how they are cut into parts.

  Attributes:
    dataset: "digits"; "cifar10", "cifar100" or "imagenet2012", from a TFDS directory; "npz", from a
      file of arrays; "folder", from a directory with a folder of image files for each class.
    data_dir: path of that directory or file; empty for digits, which need none.
    images: how many images each of the four parts has.
    image_size: side to which photographs are cropped when they are read, pixels; 0 leaves the
      images at the data set's own size, and means 224 for ImageNet.
    unreadable_images: largest number of damaged image files that are left out or replaced; if there
      are more, the run is refused.
  """

  dataset: str = "digits"
  data_dir: str = ""
  images: Sizes = dataclasses.field(default_factory=Sizes)
  image_size: int = 0
  unreadable_images: int = 0

  def __post_init__(self):
    """Raises InputError for negative numbers."""
    for name in ("image_size", "unreadable_images"):
      if (value := getattr(self, name)) < 0:
        raise InputError(f"{name} is {value}: it must not be negative")

  def check_side(self, side: int) -> None:
    """Raises InputError unless `image_size` is 0 or `side`, the side of every image, in pixels."""
    if self.image_size not in (0, side):
      raise InputError(f"image_size is {self.image_size}: images of {self.dataset} have {side}")
