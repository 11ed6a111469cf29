"""How many threads a process computes with on a CPU.

    use_threads(None)    # what the machine has, shared by the processes that a launcher started on it
    use_threads(4)

`accelerate launch` and `torchrun` set `OMP_NUM_THREADS=1` unless the user has set it, and then PyTorch uses
one core of however many there are. A number that the user chose is kept: that of the variable, also if it was
set for `accelerate launch`, or of `torch.set_num_threads`.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

MAX_THREADS = 4096
VARIABLE = "OMP_NUM_THREADS"
LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # variables that they set
# The number of processes on this machine, as torchrun, Intel MPI, Open MPI and MVAPICH say it.
LOCAL_PROCESSES = (
    *("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
CPUS, CGROUPS = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup")


def use_threads(threads: int | None) -> int:
    """Set the number of threads of this process to `threads`, or to `default_threads()`; return the number.

    It is a setting of PyTorch in this process alone: workers that read text keep one thread each.
    """
    number = default_threads() if threads is None else threads
    if number != torch.get_num_threads():
        torch.set_num_threads(number)
    return number


@contextmanager
def using_threads(threads: int | None) -> Iterator[int]:
    """As `use_threads`, with the former number at the end."""
    before = torch.get_num_threads()
    try:
        yield use_threads(threads)
    finally:
        torch.set_num_threads(before)


def default_threads() -> int:
    """The user's own choice, or this process's share of the cores that it may use."""
    share, now = max(1, available_cores() // local_processes()), torch.get_num_threads()
    if set_by_launcher():
        return share
    return now if VARIABLE in os.environ else min(now, share)


def set_by_launcher() -> bool:
    """Whether a launcher has set the variable, and not the user. The launcher's own environment tells; where
    it cannot be read, only the 1 that launchers set by themselves is taken for theirs."""
    if VARIABLE not in os.environ or not any(name in os.environ for name in LAUNCHERS):
        return False
    try:
        environment = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return os.environ[VARIABLE] == "1"
    return not any(entry.startswith(f"{VARIABLE}=".encode()) for entry in environment)


def local_processes() -> int:
    numbers = (os.environ.get(name, "") for name in LOCAL_PROCESSES)
    return next((int(number) for number in numbers if number.isdecimal() and int(number)), 1)


# ---- the machine


def available_cores() -> int:
    """The cores that this process may use, by its affinity and by the limits of its control groups. Two
    threads of one core count once: they share what computes products."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, min([len({siblings(cpu) for cpu in cpus}), *map(math.ceil, quotas())]))


def siblings(cpu: int) -> str:
    """The CPUs of one core, such as "0,32"; its own number where the system does not say."""
    try:
        return (CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def quotas() -> list[float]:
    """The limits of the control groups of both versions, in CPUs; empty if there is none."""
    limits = []
    for folder in control_groups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            else:
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                quota, period = ((folder / name).read_text(encoding="ascii").strip() for name in names)
            if quota.isdecimal():  # not "max" or -1
                limits.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return limits


def control_groups() -> list[Path]:
    """The folders of this process's control group and of those above it."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = CGROUPS / controllers if controllers else CGROUPS
            folders += [
                root / above for above in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents))
            ]
    return folders
