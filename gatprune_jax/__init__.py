"""Channel pruning of trained convolutional networks by graph-based reinforcement learning.

`prune` is the main entry point. Names from `channels` are imported together with this package.
Names that need the agent are imported when they are first used, because that import takes some
seconds.
"""

import importlib
from typing import Any

from gatprune_jax.channels import (
  ChannelGraph,
  Compact,
  Deployment,
  LatencyTable,
  activation_bytes,
  compact,
  compact_state,
  compensate,
  export_onnx,
  export_stablehlo,
  export_tflite,
  latency,
  macs,
  make_constraints,
  masked,
  measure_latency,
  params,
  read_latency_table,
  trace,
  weight_bytes,
  write_latency_table,
)
from gatprune_jax.errors import InputError
from gatprune_jax.runs.report import describe

# {name that is imported when it is first used: the module that defines it}.
_LATER = {
  "AdaptationConfig": "evaluation",
  "CLASSIFICATION": "networks",
  "Network": "networks",
  "Pruned": "pruning",
  "Recipe": "training",
  "Scorer": "search",
  "SearchConfig": "search",
  "Task": "networks",
  "finetune": "pruning",
  "from_equinox": "networks",
  "from_linen": "networks",
  "from_nnx": "networks",
  "load": "networks",
  "make_problem": "search",
  "prune": "pruning",
  "save": "networks",
  "scores_before": "pruning",
}
_MODULES = ("data", "models", "search")

__version__ = "0.1.0"

__all__ = [
  "CLASSIFICATION",
  "AdaptationConfig",
  "ChannelGraph",
  "Compact",
  "Deployment",
  "InputError",
  "LatencyTable",
  "Network",
  "Pruned",
  "Recipe",
  "Scorer",
  "SearchConfig",
  "Task",
  "activation_bytes",
  "compact",
  "compact_state",
  "compensate",
  "data",
  "describe",
  "export_onnx",
  "export_stablehlo",
  "export_tflite",
  "finetune",
  "from_equinox",
  "from_linen",
  "from_nnx",
  "latency",
  "load",
  "macs",
  "make_constraints",
  "make_problem",
  "masked",
  "measure_latency",
  "models",
  "params",
  "prune",
  "read_latency_table",
  "save",
  "scores_before",
  "search",
  "trace",
  "weight_bytes",
  "write_latency_table",
]


def __getattr__(name: str) -> Any:
  """Imports a module or a name of `_LATER` when it is first used."""
  if name in _MODULES:
    return importlib.import_module(f"gatprune_jax.{name}")
  if name in _LATER:
    return getattr(importlib.import_module(f"gatprune_jax.{_LATER[name]}"), name)
  raise AttributeError(f"module 'gatprune_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
  """Returns all public names, whether they are imported yet or not."""
  return sorted(__all__)
