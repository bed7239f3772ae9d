"""ResNet-8 on CIFAR-10 averaged to 16x16 pixels: a problem for a CPU on which methods differ.

Reference: method of arXiv 2509.10526; the network is the CIFAR ResNet of arXiv 1512.03385 with
  n = 1 and option-B shortcuts, 224 channels, 3.1 M MACs.
Command: python -m experiments.compare --workdir=/tmp/cifar16 --config.data_dir=FILE.npz \\
  --config=experiments/configs/cifar10_16_resnet8.py
  with a file of the arrays x, y, x_test and y_test: uint8 images 16x16x3, and labels
Hardware: 2 CPU cores. Time and numbers: see experiments/RESULTS.md.

The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config
from experiments.common.sections import ModelConfig
from experiments.configs import digits_resnet8, variants


def get_config(variant: str = "") -> ConfigDict:
  config = digits_resnet8.get_config()
  config.dataset = "npz"
  config.images.update({"train": 20000, "reward": 2000, "select": 2000, "test": 0})
  config.model = as_config(
    ModelConfig("resnet8", options={"widths": (16, 32, 64), "shortcut": "B"})
  )
  augmentation = {"batch_size": 128, "shift": 2, "flip": True}
  config.dense.recipe.update(augmentation)
  config.dense.recipe.update({"epochs": 15, "warmup_epochs": 1.0})
  config.finetune.update(augmentation)
  config.finetune.update({"epochs": 8, "warmup_epochs": 0.0})
  config.search.update({"calibration_batch": 64, "updates": 28, "refinement": 96})
  config.compare.update({"seeds": (0, 1, 2), "budgets": (0.25, 0.12, 0.06)})
  return variants.apply("cifar10_16_resnet8", config, variant)
