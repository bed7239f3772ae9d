"""Starts a Slurm of one node for tests, with its own key, configuration, ports and daemons."""

from collections.abc import Iterator
import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")

# The states of a job that will not run again.
FINAL_STATES = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

# Debian installs the daemons in folders that are only on root's PATH.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def missing() -> str:
  """Returns the names of needed programs that are not installed; empty if all are installed."""
  return ", ".join(name for name in NEEDED if not shutil.which(name, path=PATH))


@contextlib.contextmanager
def one_node(cpus: int) -> Iterator[dict[str, str]]:
  """Runs Slurm, and yields the environment in which its commands find it."""
  with tempfile.TemporaryDirectory(prefix="slurm") as name, contextlib.ExitStack() as running:
    place = pathlib.Path(name)
    environment = dict(os.environ, PATH=PATH, SLURM_CONF=str(place / "slurm.conf"))
    (place / "slurm.conf").write_text(configuration(place, cpus))
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for command in (
      ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/munge.socket",
       f"--pid-file={place}/munged.pid", f"--seed-file={place}/munged.seed",
       f"--log-file={place}/munged.log"],
      ["slurmctld", "-D", "-f", f"{place}/slurm.conf"],
      ["slurmd", "-D", "-f", f"{place}/slurm.conf"],
    ):  # fmt: skip
      with open(place / f"{command[0]}.out", "w") as out:
        daemon = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
      running.callback(stop, daemon)
      if command[0] == "munged":
        wait_for((place / "munge.socket").exists, 30)

    def idle() -> bool:
      states = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True,
        check=False,
      )  # fmt: skip
      return states.stdout.split() == ["idle"]

    try:
      wait_for(idle, 60)
    except TimeoutError as error:
      logs = "\n".join(path.read_text()[-2000:] for path in place.glob("*.out"))
      raise TimeoutError(f"Slurm did not start:\n{logs}") from error
    yield environment
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, check=False)


def configuration(place: pathlib.Path, cpus: int) -> str:
  """Returns the text of slurm.conf for the given folder and number of CPUs."""
  user = getpass.getuser()
  controller, node = free_ports(2)
  return f"""
ClusterName=test
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=10
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(number: int) -> list[int]:
  """Returns ports on which nothing listens at the moment."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


def wait_for(condition, seconds: float) -> None:
  """Returns once the condition holds; raises TimeoutError after so many seconds."""
  end = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError(f"not within {seconds} seconds")
    time.sleep(0.2)


def stop(daemon: subprocess.Popen) -> None:
  """Ends a daemon, by force if it does not end by itself."""
  daemon.terminate()
  try:
    daemon.wait(20)
  except subprocess.TimeoutExpired:
    daemon.kill()
    daemon.wait()
