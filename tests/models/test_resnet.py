"""Tests of CIFAR ResNets of any width and for images of any size."""

import jax
import jax.numpy as jnp
import pytest

import gatprune_jax as gp
from gatprune_jax.models import cifar_resnet


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (15, 9, 3), (32, 32, 3)])
def test_any_input_size(shortcut, shape):
  module = cifar_resnet(8, 7, (4, 6, 6), shortcut)
  logits = jax.eval_shape(
    lambda key, x: module.init_with_output(key, x)[0], jax.random.key(0), jnp.zeros((2, *shape))
  )
  assert logits.shape == (2, 7)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"depth": 21}, "depth 21 is not 6n"),
    ({"depth": 2}, "depth 2 is not 6n"),
    ({"depth": 8, "widths": (4, 8)}, r"widths \(4, 8\)"),
    ({"depth": 8, "widths": (4, 0, 8)}, r"widths \(4, 0, 8\)"),
    ({"depth": 8, "widths": (8, 4, 8)}, "shrink"),
    ({"depth": 8, "shortcut": "C"}, "shortcut 'C'"),
  ],
)
def test_impossible_networks_are_refused(arguments, message):
  with pytest.raises(gp.InputError, match=message):
    cifar_resnet(num_classes=10, **arguments)
