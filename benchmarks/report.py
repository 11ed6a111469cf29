"""What every benchmark saves beside its numbers: the command that gives them again, and the machine."""

import contextlib
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elmo_hf.files import write_json

__all__ = ["command", "machine", "write_json"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ENVIRONMENTS = ROOT / "benchmarks" / ".envs"  # those of other packages


def command(script: str, arguments: Sequence[str]) -> str:
    """As one would type it; files and folders that are not in this repository are told by their names."""
    return shlex.join(["python", "-m", f"benchmarks.{script}", *map(_told, arguments)])


def _told(argument: str) -> str:
    name, is_named, value = argument.rpartition("=")
    return name + is_named + ",".join(map(_bare, value.split(",")))


def _bare(path: str) -> str:
    found = Path(path)
    is_outside = found.exists() and not found.resolve().is_relative_to(ROOT)
    return found.resolve().name if is_outside or found.is_absolute() else path


def machine() -> dict[str, Any]:
    cpu, memory = platform.processor() or platform.machine(), None
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), cpu)
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "memory_gb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "load_at_the_end": load,
    }


def instructions() -> list[str]:
    """Of the processor's abilities those that decide how fast products are."""
    names = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = next(
            (line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), []
        )
        return [name for name in names if name in flags]
    return []
