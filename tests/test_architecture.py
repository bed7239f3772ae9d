"""Tests of the package's layers: which subpackage may import which, and that no cycles exist."""

import ast
import graphlib
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# A room is a subpackage or a top-level module of `gatprune_jax`. A room may import only from rooms
# in lines above its own line. `__init__` is the package itself, which the experiments import.
ROOMS = (
  ("errors",),
  ("runtime", "kernels"),
  ("channels", "models", "data"),
  ("networks", "runs"),
  ("reporting",),
  ("criteria",),
  ("agent", "evaluation", "training"),
  ("search",),
  ("pruning",),
  ("__init__",),
)
LEAVES = {"models": {"errors"}, "data": {"errors", "runtime"}, "kernels": set()}


def modules(*folders):
  """Returns {dotted name: path} of all modules in the folders."""
  found = {}
  for folder in folders:
    for place, _, names in os.walk(os.path.join(ROOT, folder)):
      for name in names:
        if name.endswith(".py"):
          path = os.path.join(place, name)
          dotted = os.path.relpath(path, ROOT)[: -len(".py")].replace(os.sep, ".")
          found[dotted.removesuffix(".__init__")] = path
  return found


ALL = modules("gatprune_jax", "experiments")


def imports(path):
  """Returns the modules of this project that a module imports at its top level."""
  found = set()
  with open(path) as file:
    tree = ast.parse(file.read())
  for node in tree.body:
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        found.add(inner if inner in ALL else node.module)
  return found & ALL.keys()


def room(module):
  """Returns the room of a module of the library; for the package itself, "__init__"."""
  return (module.split(".") + ["__init__"])[1]


def test_every_module_is_in_a_room():
  library = {room(name) for name in ALL if name.startswith("gatprune_jax")}
  assert library == {name for line in ROOMS for name in line}


@pytest.mark.parametrize("name", sorted(n for n in ALL if n.startswith("gatprune_jax")))
def test_arrows_go_down(name):
  floor = {name: index for index, line in enumerate(ROOMS) for name in line}
  own = room(name)
  for other in imports(ALL[name]):
    assert not other.startswith("experiments"), other
    if room(other) != own:
      assert floor[room(other)] < floor[own], other
      assert own not in LEAVES or room(other) in LEAVES[own], other


def test_no_cycles():
  # Modules outside a package import from its `__init__`. Modules inside the package import from
  # each other directly, because importing from `__init__` would be a cycle.
  graph = {}
  for name, path in ALL.items():
    graph[name] = {other for other in imports(path) if not name.startswith(f"{other}.")}
    inside = [other for other in imports(path) if name.startswith(f"{other}.")]
    assert inside == [], f"{name} imports the door of its own room: {inside}"
  graphlib.TopologicalSorter(graph).prepare()  # raises if there is a cycle
