"""ResNet-8 on scikit-learn's digits, pruned to a quarter of its MACs: the default config.

Reference: method of arXiv 2509.10526; the network is the CIFAR ResNet of arXiv 1512.03385 with
  n = 1 and option-B shortcuts, 224 channels.
Command: python -m experiments.prune --workdir=/tmp/digits
Hardware: 2 CPU cores.
Time and numbers: see experiments/RESULTS.md.

The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.common.settings import default_config
from experiments.configs import variants


def get_config(variant: str = "") -> ConfigDict:
  config = default_config()
  config.dataset = "digits"
  config.images.update({"reward": 400, "select": 300, "test": 400})
  config.model.update({"name": "resnet8", "widths": (16, 32, 64), "shortcut": "B"})
  config.dense.recipe.update({"epochs": 30, "shift": 1})  # no flip: a mirrored digit is not a digit
  config.budgets.macs = 0.25
  config.search.update({"updates": 44, "calibration_batch": 256})
  config.finetune.update({"epochs": 40, "warmup_epochs": 1.0, "shift": 1})
  config.compare.budgets = (0.25, 0.12, 0.06)
  return variants.apply("digits_resnet8", config, variant)
