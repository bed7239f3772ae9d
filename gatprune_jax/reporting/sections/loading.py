"""How to load what the run saved."""

import os

from gatprune_jax.reporting.parts import Code, Part, Text
from gatprune_jax.reporting.record import API, PRUNE, Run


def loading(run: Run, name: str) -> list[Part]:
  """Returns lines to copy that load the pruned network, or the masks of a comparison."""
  if run.experiment == PRUNE:
    path = os.path.join(os.path.abspath(run.path), "pruned")
    return [
      Text("The network runs without the code of its model, on batches of any size:"),
      Code(
        "import gatprune_jax as gp\n\n"
        f"small = gp.load({path!r})\n"
        "outputs = small.apply(small.variables, x)"
      ),
    ]
  if run.experiment == API:
    path = os.path.abspath(run.path)
    return [
      Text("The same call on this workdir returns the finished network, which can be saved:"),
      Code(
        f"pruned = gp.prune(network, data, budgets, ..., workdir={path!r})\n"
        'pruned.save("out")\n'
        'small = gp.load("out/network")\n'
        "outputs = small.apply(small.variables, x)"
      ),
    ]
  rows = os.path.join(os.path.abspath(run.path), "rows")
  seed, budget = (run.config["compare"][each][0] for each in ("seeds", "budgets"))
  path = os.path.join(rows, f"seed{seed}-macs{budget}-masks.npz")
  return [
    Text("A comparison keeps the masks of every method, best first, and no networks:"),
    Code(
      "from gatprune_jax.pruning import load_proposals\n\n"
      f"for method in load_proposals({path!r}):\n"
      "  print(method.method, method.masks.shape)"
    ),
  ]
