"""Libraries that are measured against; a benchmark whose peer is not installed is skipped."""

import importlib
import importlib.util
import types

PEERS = {  # {module: how to install it}
  "torch": "pip install torch==2.13.0",
  "torch_geometric": "pip install torch==2.13.0 torch_geometric",
}


class Skipped(Exception):
  """A benchmark cannot run here; the message says why."""


def require(peer: str) -> None:
  """Raises Skipped where the peer is not installed."""
  if importlib.util.find_spec(peer) is None:
    raise Skipped(f"{peer} is not installed: {PEERS[peer]}")


def adapter(peer: str) -> types.ModuleType:
  """The module of this package that drives a peer: `experiments.benchmarks.PEER_network`.

  Raises:
    Skipped: where the peer is not installed.
  """
  require(peer)
  return importlib.import_module(f"experiments.benchmarks.{peer}_network")


def overview() -> str:
  """One line for each peer: whether it is there, and how to install it."""
  there = {peer: importlib.util.find_spec(peer) is not None for peer in PEERS}
  return "\n".join(
    f"{peer}: {'installed' if there[peer] else 'missing'}, {command}"
    for peer, command in PEERS.items()
  )
