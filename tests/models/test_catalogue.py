"""Tests of networks by name: what they return, and which names and options are refused."""

import flax.errors
import jax
import jax.numpy as jnp
import pytest

import gatprune_jax as gp
from gatprune_jax.models import MODELS, eval_function, model, train_function
from gatprune_jax.models.mobilenet import scaled_width


@pytest.mark.parametrize("name", MODELS)
def test_every_network_maps_images_to_logits(name):
  module = model(name, 7)
  x = jax.ShapeDtypeStruct((2, 33, 47, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  assert jax.eval_shape(eval_function(module), variables, x).shape == (2, 7)
  logits, updates = jax.eval_shape(train_function(module), variables, x)
  assert logits.shape == (2, 7)
  assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_the_imagenet_vgg_flattens_and_drops():
  module = model("vgg16", 5, dense_widths=(6,), dropout=0.5, widths=(2, 2, 2, 2, 3))
  x = jax.ShapeDtypeStruct((4, 64, 64, 1), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  assert variables["params"]["dense1"]["kernel"].shape == (2 * 2 * 3, 6)
  assert jax.eval_shape(eval_function(module), variables, x).shape == (4, 5)
  with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
    jax.eval_shape(train_function(module), variables, x)


def test_a_dense_layer_keeps_what_it_read():
  # Each layer of a DenseNet appends 12 channels, so the last stage ends with 16 + 36 * 12 = 448.
  variables = jax.eval_shape(
    model("densenet40", 3).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3))
  )
  assert variables["params"]["head"]["kernel"].shape == (448, 3)


@pytest.mark.parametrize(
  ("channels", "multiplier", "width"),
  [
    (32, 1.0, 32),
    (16, 0.35, 8),  # 5.6 is raised to 8
    (24, 0.75, 24),  # 18 rounds to 16, which is less than 90 % of 18
    (96, 0.75, 72),
    (1280, 1.4, 1792),
  ],
)
def test_mobilenet_widths_are_multiples_of_eight(channels, multiplier, width):
  assert scaled_width(channels, multiplier) == width


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    ("resnet21", {}, "'resnet21' is unknown: choose one of resnet8, .*densenet40"),
    ("resnet20", {"growth": 3}, "resnet20 has no option 'growth': choose from widths, shortcut"),
    ("resnet20", {"depth": 3}, "resnet20 has no option 'depth'"),
    ("resnet50", {"widths": (64, 128, 256)}, r"widths \(64, 128, 256\)"),
    ("resnet18", {"widths": (8.5, 8, 8, 8)}, r"widths \(8\.5, 8, 8, 8\)"),
    ("resnet18", {"widths": ("a", 8, 8, 8)}, r"widths \('a', 8, 8, 8\)"),
    ("vgg16", {"widths": (64, 128, 256)}, r"widths \(64, 128, 256\)"),
    ("vgg16", {"widths": (8, 8, 8, 8, "8")}, r"widths \(8, 8, 8, 8, '8'\)"),
    ("vgg16", {"dense_widths": (6.5,)}, r"dense_widths \(6\.5,\)"),
    ("vgg16", {"dense_widths": (0,)}, r"dense_widths \(0,\)"),
    ("vgg19", {"dropout": 1.0}, "dropout 1.0"),
    ("mobilenet_v2", {"width_multiplier": 0}, "width_multiplier 0"),
    ("mobilenet_v2", {"dropout": -0.1}, "dropout -0.1"),
    ("densenet40", {"growth": 0}, "growth 0"),
    ("densenet40", {"growth": 1.5}, r"growth 1\.5"),
  ],
)
def test_unknown_names_and_options_are_refused(name, options, message):
  with pytest.raises(gp.InputError, match=message):
    model(name, 10, **options)


def test_a_network_has_classes():
  with pytest.raises(gp.InputError, match="num_classes 0"):
    model("resnet20", 0)


@pytest.mark.parametrize(
  ("constructor", "depth"),
  [(gp.models.imagenet_resnet, 101), (gp.models.vgg_bn, 11), (gp.models.cifar_densenet, 41)],
)
def test_impossible_depths_are_refused(constructor, depth):
  with pytest.raises(gp.InputError, match=f"depth {depth}"):
    constructor(depth, 10)


@pytest.mark.parametrize(("name", "least"), [("vgg16", 32), ("vgg19", 32), ("densenet40", 4)])
def test_images_that_pooling_leaves_nothing_of_are_refused(name, least):
  module = model(name, 3)
  images = lambda *size: jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  jax.eval_shape(module.init, jax.random.key(0), images(least, least))
  for size in ((least - 1, least), (least, least - 1)):
    message = rf"images of {size[0]} x {size[1]} pixels: a .* needs at least {least} x {least}"
    with pytest.raises(gp.InputError, match=message):
      jax.eval_shape(module.init, jax.random.key(0), images(*size))
