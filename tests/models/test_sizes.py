"""Tests of the parameters and multiply-adds of every network against published numbers."""

import jax
import jax.numpy as jnp
import pytest

from gatprune_jax.models import eval_function, model
from tests.channels.counting import count_macs

IMAGENET_DENSE = {"dense_widths": (4096, 4096)}


def sizes(name, num_classes, side, **options):
  module = model(name, num_classes, **options)
  x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  return parameters, count_macs(eval_function(module), variables, x)


# Parameters and GFLOPS are from torchvision's tables of weights, where one multiply-add counts as
# one FLOP: docs.pytorch.org/vision/stable/models.html.
@pytest.mark.parametrize(
  ("name", "options", "parameters", "giga_macs"),
  [
    ("resnet18", {}, 11_689_512, 1.81),
    ("resnet34", {}, 21_797_672, 3.66),
    ("resnet50", {}, 25_557_032, 4.09),
    ("vgg16", IMAGENET_DENSE, 138_365_992, 15.47),
    ("vgg19", IMAGENET_DENSE, 143_678_248, 19.63),
    ("mobilenet_v2", {}, 3_504_872, 0.30),
  ],
)
def test_imagenet_networks_have_the_published_sizes(name, options, parameters, giga_macs):
  counted, macs = sizes(name, 1000, 224, **options)
  assert counted == parameters
  assert round(macs / 1e9, 2) == giga_macs


# The millions of multiply-adds are those of the checkpoints listed in
# github.com/tensorflow/models, research/slim/nets/mobilenet/README.md.
@pytest.mark.parametrize(
  ("multiplier", "mega_macs"), [(0.35, 59), (0.5, 97), (0.75, 209), (1.4, 582)]
)
def test_mobilenets_of_other_widths_have_the_published_multiply_adds(multiplier, mega_macs):
  _, macs = sizes("mobilenet_v2", 1000, 224, width_multiplier=multiplier)
  assert round(macs / 1e6) == mega_macs


# The numbers of parameters are exact. The README of github.com/akamaster/pytorch_resnet_cifar10
# rounds them to 0.27, 0.46, 0.66, 0.85 and 1.7 M (option A, as in He et al. 2016, table 6). Two
# more layers in each stage add 2 * 9 * (16^2 + 32^2 + 64^2) + 4 * (16 + 32 + 64) = 97,216
# parameters.
# The multiply-adds are those of He et al. 2018 (arXiv 1808.06866). Their table has no ResNet-44, so
# its multiply-adds are computed: two more layers in each stage add
# 3 * 2 * 9 * 16^2 * 32^2 = 14,155,776.
@pytest.mark.parametrize(
  ("depth", "parameters", "published_macs"),
  [
    (20, 269_722, 4.06e7),
    (32, 464_154, 6.89e7),
    (44, 658_586, 6.89e7 + 2 * 14_155_776),
    (56, 853_018, 1.25e8),
    (110, 1_727_962, 2.53e8),
  ],
)
def test_cifar_resnets_have_the_published_sizes(depth, parameters, published_macs):
  counted, macs = sizes(f"resnet{depth}", 10, 32)
  assert counted == parameters
  assert macs == pytest.approx(published_macs, rel=0.005)


def test_option_b_adds_its_projections():
  # Option B projects 16 -> 32 and 32 -> 64 channels by 1x1 convolutions, each with a scale and an
  # offset. The convolutions are applied at 16x16 and 8x8 positions.
  parameters, macs = sizes("resnet20", 10, 32)
  more_parameters, more_macs = sizes("resnet20", 10, 32, shortcut="B")
  assert more_parameters - parameters == 16 * 32 + 32 * 64 + 2 * (32 + 64)
  assert more_macs - macs == 16 * 32 * 16**2 + 32 * 64 * 8**2


# Table 1 of Liu et al. 2017 (Network Slimming, arXiv 1708.06519) has parameters in M, and
# floating-point operations, two for each multiply-add. It also counts the operations of layers that
# do not multiply. Table 1 of Li et al. 2017 (arXiv 1608.08710) has VGG-16 with one more dense
# layer of 512, and counts 3.13e8 multiply-adds and 1.5e7 parameters.
@pytest.mark.parametrize(
  ("name", "options", "mega_parameters", "macs", "rel"),
  [
    ("vgg16", {"dense_widths": (512,)}, 15.0, 3.13e8, 0.002),
    ("vgg19", {}, 20.04, 7.97e8 / 2, 0.002),
    ("densenet40", {}, 1.02, 5.33e8 / 2, 0.01),
  ],
)
def test_other_cifar_networks_have_the_published_sizes(name, options, mega_parameters, macs, rel):
  parameters, counted_macs = sizes(name, 10, 32, **options)
  assert parameters / 1e6 == pytest.approx(mega_parameters, rel=0.001)
  assert counted_macs == pytest.approx(macs, rel=rel)
