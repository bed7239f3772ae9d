"""VGG-19 with batch norm on CIFAR-100, pruned to a tenth of its MACs.

Reference: Simonyan and Zisserman 2015, arXiv 1409.1556, configuration E, with batch norm and one
  linear layer; published checkpoints (chenyaofo/pytorch-cifar-models) have 73.9 % on the test
  images. DepGraph (arXiv 2301.12900) prunes it to a ninth of the MACs.
Command: as cifar10_resnet20.py, with --config=experiments/configs/cifar100_vgg19.py
Hardware: one accelerator. Time and numbers: not measured yet.

The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.common.config_tree import as_config
from experiments.common.sections import ModelConfig
from experiments.configs import cifar100_resnet56, variants


def get_config(variant: str = "") -> ConfigDict:
  config = cifar100_resnet56.get_config()
  config.model = as_config(ModelConfig("vgg19"))
  config.budgets.macs = 0.1
  config.compare.budgets = (0.1,)
  return variants.apply("cifar100_vgg19", config, variant)
