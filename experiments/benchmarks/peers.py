"""Peers: libraries that benchmarks compare with.

A benchmark whose peer is not installed is skipped.
"""

import importlib
import importlib.util
import types

PEERS = {  # {module: how to install it}
  "torch": "pip install torch==2.13.0",
  "torch_geometric": "pip install torch==2.13.0 torch_geometric",
  "litert_converter": "pip install -e '.[litert]'",
  "ai_edge_litert": "pip install -e '.[litert]'",
  "onnx": "pip install -e '.[onnx]'",
  "onnxruntime": "pip install -e '.[onnx]'",
}


class Skipped(Exception):
  """Raised by a benchmark that cannot run here; the message says why."""


def require(peer: str) -> None:
  """Raises Skipped if the peer is not installed."""
  if importlib.util.find_spec(peer) is None:
    raise Skipped(f"{peer} is not installed: {PEERS[peer]}")


def adapter(peer: str) -> types.ModuleType:
  """Imports the module that implements the work in a peer: `experiments.benchmarks.PEER_network`.

  Raises:
    Skipped: if the peer is not installed.
  """
  require(peer)
  return importlib.import_module(f"experiments.benchmarks.{peer}_network")


def overview() -> str:
  """Returns one line for each peer: whether it is installed, and how to install it."""
  there = {peer: importlib.util.find_spec(peer) is not None for peer in PEERS}
  return "\n".join(
    f"{peer}: {'installed' if there[peer] else 'missing'}, {command}"
    for peer, command in PEERS.items()
  )
