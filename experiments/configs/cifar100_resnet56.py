"""ResNet-56 on CIFAR-100, pruned to half of its MACs.

Reference: the network of He et al. 2016, arXiv 1512.03385, section 4.2, with 100 classes; published
  checkpoints (chenyaofo/pytorch-cifar-models) have 72.6 % on the test images.
Command: as cifar10_resnet20.py, with --config=experiments/configs/cifar100_resnet56.py
Hardware: one accelerator. Time and numbers: not measured yet.

The variant `:runlocal` takes a minute on a CPU and learns nothing.
"""

from ml_collections import ConfigDict

from experiments.configs import cifar10_resnet56, variants


def get_config(variant: str = "") -> ConfigDict:
  config = cifar10_resnet56.get_config()
  config.dataset = "cifar100"
  config.images.update({"reward": 3000, "select": 3000})
  config.dense.recipe.weight_decay = 5e-4
  return variants.apply("cifar100_resnet56", config, variant)
