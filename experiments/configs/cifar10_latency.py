"""ResNet-20 on CIFAR-10, pruned to half of its measured latency on the CPU at hand.

XLA's convolutions of 16 channels and fewer get little faster with fewer channels, so half of the
latency can hardly be reached as long as every layer keeps some. Residual branches may be removed
whole here. The variant `:mobilenet_v2` is for that network, whose layers are wider.

Reference: He et al. 2016, arXiv 1512.03385, section 4.2, option A; for the variant `:mobilenet_v2`,
  Sandler et al. 2018, arXiv 1801.04381.
Command: python -m experiments.latency --workdir=/tmp/latency --config.data_dir=FILE.npz \\
  --config=experiments/configs/cifar10_latency.py --config.dense.checkpoint=DENSE
  with DENSE from experiments.train with the same config, --config.dense.recipe.epochs=2, and
  published weights as --config.dense.weights; and with a file of the arrays x, y, x_test and
  y_test: uint8 images 32x32x3, and labels
Hardware: one CPU core; few images, masks and epochs, for all methods alike. Time and numbers: see
  experiments/RESULTS.md.

The variant `:runlocal` takes some minutes on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config
from experiments.common.sections import ModelConfig
from experiments.configs import cifar10_resnet20, variants


def get_config(variant: str = "") -> ConfigDict:
  config = cifar10_resnet20.get_config("cpu")
  config.dataset = "npz"
  config.images.update({"train": 6000, "reward": 384, "select": 1000, "test": 2000})
  config.budgets.update({"macs": None, "params": None, "latency": 0.5})
  config.deployment.batch = 8
  config.search.update({"updates": 24, "samples": 16, "refinement": 288, "allow_empty": True})
  config.search.adaptation.steps = 0
  return variants.apply("cifar10_latency", config, variant, {"mobilenet_v2": _mobilenet_v2})


def _mobilenet_v2(config: ConfigDict) -> None:
  config.model = as_config(ModelConfig("mobilenet_v2"))
  config.deployment.batch = 1
  config.images.update({"train": 12000, "reward": 1500})
  # The warm-up is long because this network's first steps are unstable without it.
  config.dense.recipe.update({"epochs": 30, "learning_rate": 0.02, "warmup_epochs": 2.0})
  config.search.update({"refinement": 64, "allow_empty": False})
