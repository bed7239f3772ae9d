"""ResNet-56 on CIFAR-10, pruned to half of its MACs: the network that most pruning papers report.

Reference: He et al. 2016, arXiv 1512.03385, section 4.2: option A, 853,018 parameters, 125.5 M
  MACs, 93.03 % on the test images.
Command: as cifar10_resnet20.py, with --config=experiments/configs/cifar10_resnet56.py
Hardware: one accelerator. Time and numbers: not measured yet.

The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.configs import cifar10_resnet20, variants


def get_config(variant: str = "") -> ConfigDict:
  config = cifar10_resnet20.get_config()
  config.model.name = "resnet56"
  return variants.apply("cifar10_resnet56", config, variant)
