"""Variants of a config that are chosen after a colon: `CONFIG.py:runlocal`."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict


def apply(
  name: str, config: ConfigDict, variant: str, others: Mapping[str, Callable] | None = None
) -> ConfigDict:
  """Changes a config in place to one of its variants, and returns the config.

  Args:
    name: name of the config, for the error message.
    config: the config that is changed.
    variant: "runlocal" or a key of `others`; "" changes nothing.
    others: {name of a further variant: function that changes a config in place}.

  Raises:
    ValueError: an unknown variant.
  """
  changes = {"": lambda config: None, "runlocal": run_locally, **(others or {})}
  if variant not in changes:
    raise ValueError(
      f"variant {variant!r} of {name} is unknown: choose {', '.join(filter(None, changes))} or none"
    )
  changes[variant](config)
  return config


def run_locally(config: ConfigDict) -> None:
  """Shrinks the experiment to a handful of images; it learns nothing, and mostly compiles."""
  config.images.update({"train": 48, "reward": 24, "select": 16, "test": 16})
  for recipe in (config.dense.recipe, config.finetune):
    recipe.update({"epochs": 1, "batch_size": 16, "warmup_epochs": 0.0})
  config.criteria = ("l1",)
  config.search.update({"updates": 2, "samples": 4, "refinement": 4, "shortlist": 1})
  config.search.calibration_images = 16
  config.search.adaptation.update({"steps": 1, "batch_size": 16})
  config.search.policy.update({"layers": 1, "heads": 1})
  config.search.ppo.epochs = 1
  config.finetune_side_by_side = True
  config.compare.update({"seeds": (0,), "searches": ()})
