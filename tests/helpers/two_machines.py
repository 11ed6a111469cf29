"""Two "machines" on this one: two network namespaces where there is root, and the loopback elsewhere.

    with two_machines() as machines:
        processes = [subprocess.Popen([*machine.prefix, *command]) for machine in machines]

Nothing but the namespaces' own network connects them: what binds to the loopback does not reach the other.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Machine(NamedTuple):
    prefix: list[str]  # of a command that runs there
    address: str


@contextlib.contextmanager
def two_machines() -> Iterator[list[Machine]]:
    names = [f"elmo-{uuid.uuid4().hex[:6]}-{number}" for number in range(2)]
    try:
        is_made = _make(names)
        addresses = ["10.99.7.1", "10.99.7.2"] if is_made else ["127.0.0.1", "127.0.0.1"]
        prefixes = [["ip", "netns", "exec", name] if is_made else [] for name in names]
        yield [Machine(prefix, address) for prefix, address in zip(prefixes, addresses, strict=True)]
    finally:
        for name in names:
            _ip("netns", "del", name)


def _make(names: list[str]) -> bool:
    """Whether there are two namespaces now, with a cable between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    steps = [["netns", "add", name] for name in names]
    steps += [["-n", names[0], "link", "add", "cable", "type", "veth", "peer", "cable", "netns", names[1]]]
    for number, name in enumerate(names, start=1):
        steps += [["-n", name, "addr", "add", f"10.99.7.{number}/24", "dev", "cable"]]
        steps += [["-n", name, "link", "set", device, "up"] for device in ("cable", "lo")]
    return all(_ip(*step) for step in steps)


def _ip(*arguments: str) -> bool:
    if shutil.which("ip") is None:
        return False
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


def cut_cable(machine: Machine) -> None:
    """The network of a machine of a namespace is gone, without a word to the other."""
    subprocess.run([*machine.prefix, "ip", "link", "set", "cable", "down"], check=True)


def enter(machine: Machine) -> None:
    """Move this process into the machine's network, before it has threads."""
    if machine.prefix:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/var/run/netns", machine.prefix[-1]).open() as file:
            if libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET of linux/sched.h
                raise OSError(ctypes.get_errno(), "setns")


def hook(machines: list[Machine]) -> str:
    """Code that the processes of the tests' launcher run first, with one process on each machine."""
    return (
        "import os\nfrom tests.helpers.two_machines import Machine, enter\n"
        f"enter({machines}[rank])\nos.environ['MASTER_ADDR'] = {machines[0].address!r}"
    )
