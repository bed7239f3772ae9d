"""Which images an experiment uses."""

import dataclasses

from gatprune_jax.data.splits import Sizes
from gatprune_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Fields as in the config file.

  Attributes:
    dataset: a key of `DATASETS`.
    data_dir: where its files are; digits need none.
    images: sizes of the four parts.
    image_size: side in pixels that photographs are cropped to when they are read; 0: as the data
      set has them, 224 for ImageNet.
    unreadable_images: how many damaged files are left out, or replaced, before the run is refused.
  """

  dataset: str
  data_dir: str
  images: Sizes
  image_size: int = 0
  unreadable_images: int = 0

  def __post_init__(self):
    """Refuses negative numbers."""
    numbers = {"image_size": self.image_size, "unreadable_images": self.unreadable_images}
    numbers |= {f"images.{name}": number for name, number in self.images._asdict().items()}
    for name, number in numbers.items():
      if number < 0:
        raise InputError(f"{name} is {number}: it must not be negative")

  def check_side(self, side: int) -> None:
    """Refuses another size of images that all have one."""
    if self.image_size not in (0, side):
      raise InputError(f"image_size is {self.image_size}: images of {self.dataset} have {side}")
