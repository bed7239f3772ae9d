"""The handwritten digits that come with scikit-learn: real images that need no download."""

import numpy as np
from sklearn.datasets import load_digits

from gatprune_jax.data.data_config import DataConfig
from gatprune_jax.data.splits import Dataset, Sizes, Split, cut_in_four
from gatprune_jax.errors import InputError

DIGITS = DataConfig("digits", images=Sizes(reward=400, select=300, test=400))


def digits(config: DataConfig, seed: int) -> Dataset:
  """Loads the 1,797 images `[8, 8, 1]` of the UCI optical digits test set, scaled to [-1, 1].

  With the sizes of `DIGITS`, the parts have 697 training, 400 reward, 300 select and 400 test
  images. The seed draws them, with all classes in equal shares.

  Raises:
    InputError: if the config gives a directory or another image size, or if the parts cannot be
      cut.
  """
  if config.data_dir:
    raise InputError(f"data_dir is {config.data_dir!r}: digits has none, set it to '' or dataset")
  config.check_side(8)
  x, y = load_digits(return_X_y=True)
  everything = Split((x.reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32), y.astype(np.int32))
  return Dataset("digits", 10, *cut_in_four(everything, None, config.images, seed))
