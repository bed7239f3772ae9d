"""The measurements of `experiments.bench`: speeds as ratios within one run."""

from collections.abc import Callable, Iterable

from experiments.benchmarks.attention import (
  attention_against_jraph,
  attention_against_torch,
  attention_compilation,
  attention_size,
)
from experiments.benchmarks.candidate_steps import finetuning, finetuning_against_torch
from experiments.benchmarks.ceiling import ceiling
from experiments.benchmarks.compression import half_width_speed, tracing
from experiments.benchmarks.device_scaling import scaling
from experiments.benchmarks.exporting import exported_litert, exported_onnx
from experiments.benchmarks.grouped_convolutions import grouped_convolutions
from experiments.benchmarks.mask_scoring import (
  scoring,
  scoring_against_torch,
  scoring_compensated,
  scoring_photographs,
)
from experiments.benchmarks.measuring import Measurement
from experiments.benchmarks.peers import PEERS, Skipped, overview
from experiments.benchmarks.reading import reading
from experiments.benchmarks.searching import agent_overhead, first_update

BENCHMARKS: dict[str, Callable[[], Iterable[Measurement]]] = {
  "tracing": tracing,
  "half_width_speed": half_width_speed,
  "scoring": scoring,
  "scoring_against_torch": scoring_against_torch,
  "scoring_compensated": scoring_compensated,
  "scoring_photographs": scoring_photographs,
  "grouped_convolutions": grouped_convolutions,
  "scaling": scaling,
  "finetuning": finetuning,
  "finetuning_against_torch": finetuning_against_torch,
  "agent_overhead": agent_overhead,
  "first_update": first_update,
  "reading": reading,
  "exported_litert": exported_litert,
  "exported_onnx": exported_onnx,
  "ceiling": ceiling,
  "attention_against_jraph": attention_against_jraph,
  "attention_against_torch": attention_against_torch,
  "attention_size": attention_size,
  "attention_compilation": attention_compilation,
}

__all__ = ["BENCHMARKS", "PEERS", "Measurement", "Skipped", "overview"]
