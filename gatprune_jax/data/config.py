"""Which images an experiment uses."""

import dataclasses

from gatprune_jax.data.splits import Sizes
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which images, and how they are cut.

  Attributes:
    dataset: "digits"; "cifar10", "cifar100" or "imagenet2012", of a TFDS directory; "npz", a file
      of arrays; "folder", with a folder of image files for each class.
    data_dir: that directory, file or folder; digits have none.
    images: how many images each of the four parts has.
    image_size: side in pixels that photographs are cropped to when they are read; 0: as the data
      set has them, 224 for ImageNet.
    unreadable_images: damaged files that are left out, or replaced, before the run is refused.
  """

  dataset: str = "digits"
  data_dir: str = ""
  images: Sizes = dataclasses.field(default_factory=Sizes)
  image_size: int = 0
  unreadable_images: int = 0

  def __post_init__(self):
    """Refuses negative numbers."""
    for name in ("image_size", "unreadable_images"):
      if (value := getattr(self, name)) < 0:
        raise InputError(f"{name} is {value}: it must not be negative")

  def check_side(self, side: int) -> None:
    """Refuses another size of images that all have one."""
    if self.image_size not in (0, side):
      raise InputError(f"image_size is {self.image_size}: images of {self.dataset} have {side}")
