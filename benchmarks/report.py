"""What all benchmarks share: folders, what is recorded beside a number, rounds, Markdown tables, figures."""

import contextlib
import os
import platform
import re
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "README.md"
ENVIRONMENTS = ROOT / "benchmarks" / ".envs"  # other packages', one folder each
# Flags of the processor that decide how fast matrix products are.
INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "sve", "bf16"),
)
EMPTY = "–"  # a table cell without a value
Value = TypeVar("Value")


# ---- what is recorded beside a number


def command(module: str, arguments: Sequence[str]) -> str:
    """The command line that gives the numbers; a path outside of the repository is shortened to its name."""
    return shlex.join(["python", "-m", f"benchmarks.{module}", *map(_shorten_argument, arguments)])


def _shorten_argument(argument: str) -> str:
    name, equals_sign, value = argument.rpartition("=")
    return name + equals_sign + ",".join(map(_shorten_path, value.split(",")))


def _shorten_path(text: str) -> str:
    path = Path(text)
    is_outside = path.exists() and not path.resolve().is_relative_to(ROOT)
    return path.resolve().name if is_outside or path.is_absolute() else text


def machine() -> dict[str, Any]:
    cpu, memory = platform.processor() or platform.machine(), None
    with contextlib.suppress(OSError):
        lines = _cpuinfo()
        cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), cpu)
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu,
        "instructions": _instruction_sets(),
        "cores": os.cpu_count(),
        "memory_gb": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "load_at_the_end": load,
    }


def _instruction_sets() -> list[str]:
    with contextlib.suppress(OSError):
        flags = next((line.split() for line in _cpuinfo() if line.startswith(("flags", "Features"))), [])
        return [name for name in INSTRUCTION_SETS if name in flags]
    return []


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()


def versions(*libraries: str) -> dict[str, str]:
    """Python's version and those of the libraries that are installed."""
    installed = {"python": platform.python_version()}
    for library in libraries:
        with contextlib.suppress(PackageNotFoundError):
            installed[library] = version(library)
    return installed


# ---- rounds


def in_turns(
    calls: Mapping[str, Callable[[int], Value]], rounds: int, warmup: int = 1
) -> dict[str, list[Value]]:
    """What each call returns for the number of each round; in a round each has one turn.

    A busy moment of the machine hits all of them, so they are compared within a round. The first `warmup`
    rounds are not returned.
    """
    values: dict[str, list[Value]] = {name: [] for name in calls}
    for number in range(warmup + rounds):
        for name, call in calls.items():
            value = call(number)
            if number >= warmup:
                values[name].append(value)
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum, to four digits."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


# ---- Markdown


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns are aligned as text, the others as numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def fill_blocks(text: str, kind: str, content: Callable[[str], str]) -> str:
    """The text with `content(name)` between its lines `<!-- kind: name -->` and `<!-- /kind -->`."""
    block = re.compile(rf"(<!-- {kind}: ([\w/-]+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}\n{content(match[2])}\n\n{match[3]}", text)


def fill_page(page: Path, kind: str, content: Callable[[str], str]) -> None:
    """Fill the blocks of a file, as `fill_blocks`."""
    from elmo_hf.files import whole_file  # not above: other packages' environments import this module

    text = fill_blocks(page.read_text(encoding="utf-8"), kind, content)
    with whole_file(page) as partial:
        partial.write_text(text, encoding="utf-8")


def one_decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


# ---- figures


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, laid out so that no text overlaps."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ValueError("a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.") from None
    return Figure(figsize=(width, height), dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1))
