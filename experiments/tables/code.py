"""The code that a program depends on, and a hash of it.

A program depends on the module that runs, on the modules that define what it imports, and so on.
Imports are followed by name: `from gatprune_jax.search import search` leads to the module that
defines `search`, not to everything that the package `gatprune_jax.search` offers.
"""

import ast
from collections.abc import Iterable, Iterator
import hashlib
import io
import os
import tokenize

PACKAGES = ("gatprune_jax", "experiments")
# These packages show numbers that others have measured, and change none.
_SHOWING = ("gatprune_jax.reporting",)


class Project:
  """The modules below a directory.

  Args:
    root: the directory that holds the packages `gatprune_jax` and `experiments`.
  """

  def __init__(self, root: str):
    self._root = root
    self._paths = {}  # {dotted name: path relative to the root}
    for package in PACKAGES:
      for place, _, names in os.walk(os.path.join(root, package)):
        for name in names:
          if name.endswith(".py"):
            path = os.path.relpath(os.path.join(place, name), root)
            dotted = path.removesuffix(".py").replace(os.sep, ".")
            self._paths[dotted.removesuffix(".__init__")] = path
    self._trees: dict[str, ast.Module] = {}

  def files(self, roots: Iterable[str]) -> list[str]:
    """Returns the paths, relative to the root, of all modules that some modules depend on.

    Args:
      roots: dotted names of the modules that are run.
    """
    found, waiting = set(), list(roots)
    while waiting:
      module = waiting.pop()
      if module not in found and not module.startswith(_SHOWING):
        found.add(module)
        waiting += self._needed(module)
    return sorted(self._paths[module] for module in found)

  def code_hash(self, roots: Iterable[str]) -> str:
    """Returns 12 hexadecimal digits of the SHA-256 of what `files` names.

    Comments, docstrings and empty lines do not count.
    """
    digest = hashlib.sha256()
    for path in self.files(roots):
      with open(os.path.join(self._root, path), encoding="utf-8") as file:
        digest.update(f"{path}\n{statements(file.read())}\n".encode())
    return digest.hexdigest()[:12]

  def _needed(self, module: str) -> Iterator[str]:
    """Yields the modules that define the names which a module imports."""
    nodes = list(ast.walk(self._tree(module)))
    packages = {}  # {name in the module: the package that it stands for}
    for node in nodes:
      if isinstance(node, ast.ImportFrom) and node.module in self._paths:
        yield from (self._origin(node.module, alias.name) for alias in node.names)
      elif isinstance(node, ast.Import):
        packages |= {alias.asname or alias.name: alias.name for alias in node.names}
    for node in nodes:
      if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        package = packages.get(node.value.id)
        if package in self._paths:
          yield self._origin(package, node.attr)
      # A module that imports others by `importlib` has their names as strings.
      if isinstance(node, ast.Constant) and "importlib" in packages:
        beside = f"{self._package_of(module)}.{node.value}"
        if beside in self._paths:
          yield beside

  def _package_of(self, module: str) -> str:
    is_package = self._paths[module].endswith("__init__.py")
    return module if is_package else module.rpartition(".")[0]

  def _origin(self, package: str, name: str) -> str:
    """Returns the module that defines a name which is imported from a package or a module."""
    if f"{package}.{name}" in self._paths:
      return f"{package}.{name}"
    if self._package_of(package) != package:
      return package
    for node in ast.walk(self._tree(package)):
      if isinstance(node, ast.ImportFrom) and node.module in self._paths:
        for alias in node.names:
          if (alias.asname or alias.name) == name:
            return self._origin(node.module, alias.name)
      # A dict says where the names are that the package imports when they are first used.
      if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
          if isinstance(key, ast.Constant) and key.value == name:
            beside = f"{package}.{getattr(value, 'value', None)}"
            if beside in self._paths:
              return self._origin(beside, name)
    return package

  def _tree(self, module: str) -> ast.Module:
    if module not in self._trees:
      with open(os.path.join(self._root, self._paths[module]), encoding="utf-8") as file:
        self._trees[module] = ast.parse(file.read())
    return self._trees[module]


def statements(source: str) -> str:
  """Returns the lines of a module without its comments, docstrings and empty lines."""
  lines = source.split("\n")
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      row, column = token.start
      lines[row - 1] = lines[row - 1][:column]
  for node in ast.walk(ast.parse(source)):
    if (
      isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
      and ast.get_docstring(node, clean=False) is not None
    ):
      docstring = node.body[0]
      lines[docstring.lineno - 1 : docstring.end_lineno] = [""] * (
        docstring.end_lineno - docstring.lineno + 1
      )
  return "\n".join(line.rstrip() for line in lines if line.strip())
