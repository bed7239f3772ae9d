"""How a main program starts and ends: command line, signals, error messages and exit codes."""

from collections.abc import Callable
import contextlib
import importlib.util
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import configs
from experiments.common.config_tree import as_json
from experiments.common.describing import describe_config
from experiments.common.settings import Settings, make_settings
from gatprune_jax import InputError
from gatprune_jax.runs.health import Diverged
from gatprune_jax.runs.logger import Run
from gatprune_jax.runtime import cores, mesh, processes
from gatprune_jax.runtime.compilation_cache import keep_programs
from gatprune_jax.runtime.preemption import EXIT_CODE, Preempted, listening

_DEFAULT = importlib.util.find_spec(configs.DEFAULT).origin
_CONFIG = config_flags.DEFINE_config_file(
  "config", help_string="Config file; any field can be set as --config.FIELD=VALUE."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_DESCRIBE = flags.DEFINE_bool(
  "describe_config", False, "Prints every field of the config with its meaning, and does no more."
)
_MULTIHOST = flags.DEFINE_bool(
  "multihost", False, "Runs as one of several processes, each given the same command."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT where they meet, on process 0's machine; detected unless given."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "How many they are; detected unless given.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Which of them this is, from 0; detected unless given.", lower_bound=0
)
_SILENCE = flags.DEFINE_float(
  "silence",
  processes.LIMIT,
  "Seconds without a sign of life after which a process counts as gone.",
  lower_bound=1,
)
_COMPILATION_CACHE = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Directory in which compiled programs are kept for later runs, at most 2 GiB; 'off' keeps none. "
  "By default gatprune_jax in the user's directory of caches, or JAX_COMPILATION_CACHE_DIR.",
)


def start(main: Callable[[Settings, Run], None]) -> None:
  """Parses the command line and calls `main`.

  Exit codes: 0, the run is done; 1, one sentence on standard error says what was wrong; 75, a
  signal stopped the run at a step that is saved, and the same command continues from there. Any
  other exception is a defect and keeps its traceback. If one of several processes ends with an
  error, all of them end.
  """

  def guarded(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # orbax logs every file that it touches
    try:
      if len(argv) > 1:
        raise InputError(f"argument {argv[1]!r} is not a flag: use --workdir=DIR or --config.X=Y")
      settings = make_settings(_CONFIG.value)
      config = as_json(settings)  # complete, also if the config file left fields out
      if _DESCRIBE.value:
        print(describe_config(settings))
        return
      if not _WORKDIR.value:
        raise InputError("no workdir given: add --workdir=DIR")
      keep_programs(_COMPILATION_CACHE.value)
      cores.make_devices()
      with _together(), listening() as asked:
        should_stop = lambda step: mesh.anywhere(asked())
        main(settings, Run(_WORKDIR.value, config, should_stop))
    except (InputError, Diverged) as error:
      _fail(error)
    except OSError as error:
      _fail(InputError(f"{error.filename or _WORKDIR.value}: {error.strerror or error}"))
    except Preempted as stopped:
      print(f"{stopped}: the same command goes on from there", file=sys.stderr)
      sys.exit(EXIT_CODE)

  app.run(guarded, flags_parser=_parse)


def _together() -> contextlib.AbstractContextManager:
  """Returns a context in which this process is joined to the others, if there are any."""
  cluster = processes.Cluster(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  if _MULTIHOST.value:
    address = cluster.coordinator
    if address is not None and not address.rpartition(":")[2].isdecimal():
      raise InputError(f"--coordinator={address} has no port: give HOST:PORT")
    told = (InputError, Diverged, OSError)
    return processes.joined(cluster, _SILENCE.value, told, (Preempted,))
  if any(value is not None for value in cluster):
    raise InputError("--coordinator, --num_processes and --process_id need --multihost: add it")
  return contextlib.nullcontext()


def last_of_each(arguments: list[str]) -> list[str]:
  """Keeps only the last of the arguments that set the same field of the config.

  Several arguments that set the same tuple would otherwise be concatenated.
  """
  is_field = lambda argument: argument.startswith("--config.") and "=" in argument
  key = lambda place, argument: argument.partition("=")[0] if is_field(argument) else place
  return list({key(place, each): each for place, each in enumerate(arguments)}.values())


def _parse(argv: list[str]) -> list[str]:
  argv = last_of_each(argv)
  if not any(argument.lstrip("-").split("=")[0] == "config" for argument in argv):
    # The default config is added as an argument. If it were the default value of the flag, fields
    # on the command line would be looked up in it even if another config file is given.
    argv = [argv[0], f"--config={_DEFAULT}", *argv[1:]]
  try:
    rest = flags.FLAGS(argv)
    _CONFIG.value.to_dict()  # raises the error of a config file that failed to load
    return rest
  except Exception as error:  # a config file is Python code, and may raise anything
    _fail(_unknown_field(argv, error) or _last_line(error))


def _unknown_field(argv: list[str], error: Exception) -> InputError | None:
  """Returns an error that names the argument whose field the config does not have.

  The error includes the similar field that ml_collections suggests. The result is None if `error`
  is about something else.
  """
  if not isinstance(error, (AttributeError, KeyError)):
    return None
  # ml_collections names the missing field in its message.
  cause = error.args[0].args[0] if isinstance(error.args[0], KeyError) else error.args[0]
  key, *hint = str(cause).splitlines()
  named = [
    argument.split("=")[0].lstrip("-")
    for argument in argv
    if argument.startswith("--config.") and key.strip("'\"") in argument.split("=")[0].split(".")
  ]
  if not named:
    return None
  return InputError(f"{' '.join(named)} is not a field of the config. {' '.join(hint)}".strip())


def _last_line(error: Exception) -> Exception:
  """Returns the error without the traceback that its message may hold: the last line, the cause."""
  *more, last = str(error).strip().splitlines() or [type(error).__name__]
  if isinstance(error, flags.Error) and not more:
    return error
  return InputError(f"--config cannot be loaded: {last.strip()}")


def _fail(error: Exception) -> None:
  print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
  processes.end_process(1)
