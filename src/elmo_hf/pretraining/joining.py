"""How the processes of a run meet, and how each notices that another is lost.

    store = join(timeout=300)                     # None where there is a single process
    watch = Watch(store, rank, size, timeout=300) # until watch.stop()

torch's own meeting lacks what runs on several machines need: a bounded time, a sentence, a network card that
the others can reach, and a second meeting. (The store of `torchrun`'s static rendezvous outlives a restart,
with the addresses of processes that have ended.)
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil
import torch
from torch.distributed import PrefixStore, Store

from elmo_hf.errors import ElmoError, reason_of

COLLECTIVES = timedelta(hours=12)  # the other processes wait so long while the main one evaluates or saves
NETWORK = "GLOO_SOCKET_IFNAME"  # torch reads it: the network card between processes on CPUs
POLL = 0.1  # seconds


def join(timeout: float) -> Store | None:
    """Make the process group of the processes that a launcher has started, by its environment variables.

    Returns:
        a store that the processes of this start share, and no earlier ones; None for a single process, and
        where variables or devices are others than torch's usual ones: then accelerate joins the processes.

    Raises:
        ElmoError: the main process cannot be reached, or others have not come within `timeout` seconds.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1" or not {"RANK", "LOCAL_RANK"} <= os.environ.keys() or _backend() is None:
        return None
    limit = timedelta(seconds=timeout)
    use_network_of_main()
    try:
        store, rank, count = next(torch.distributed.rendezvous("env://", timeout=limit))
        store.set_timeout(limit)
    except (RuntimeError, ValueError) as error:
        raise ElmoError(_not_reached(error, timeout)) from error
    store = PrefixStore(_meet(store, rank, count, timeout), store)
    try:
        torch.distributed.init_process_group(
            _backend(), store=PrefixStore("group", store), rank=rank, world_size=count, timeout=limit
        )
    except RuntimeError as error:
        network = os.environ.get(NETWORK, "the network of the host's name")
        raise ElmoError(
            f"the processes do not reach each other by {network} ({reason_of(error):.200}); set {NETWORK} to "
            "the network card between the machines."
        ) from error
    torch.distributed.distributed_c10d._set_pg_timeout(COLLECTIVES)
    return store


def _backend() -> str | None:
    if not torch.accelerator.is_available():
        return "gloo"
    return "nccl" if torch.cuda.is_available() else None


def address() -> str:
    """Where the processes meet."""
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def is_store_reached() -> bool:
    """Whether the process that has the store, the main one or the launcher's, still runs."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        with socket.create_connection((host, port), timeout=5):
            return True
    except OSError:
        return False


def use_network_of_main() -> None:
    """Let gloo use the card by which this machine reaches the main process.

    By default it uses that of the host's name, which many systems map to the loopback, where no other machine
    reaches it.
    """
    if NETWORK in os.environ:
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)  # sends nothing
            own = probe.getsockname()[0]
        for name, addresses in psutil.net_if_addrs().items():
            if own in (entry.address.partition("%")[0] for entry in addresses):
                os.environ[NETWORK] = name


def _not_reached(error: Exception, timeout: float) -> str:
    reason = f"({reason_of(error):.200})"
    if isinstance(error, ValueError):
        return f"the launcher's variables do not say how the processes meet {reason}."
    if "clients joined" in str(error):
        return _not_all(f"not all of the {os.environ['WORLD_SIZE']} processes have", timeout)
    if os.environ["RANK"] == "0":
        return f"the main process cannot listen at {address()} {reason}; give it another port."
    return (
        f"the main process is not reached at {address()} within {timeout:g} seconds {reason}; check address "
        "and port, and whether the first machine has been started."
    )


def _not_all(who: str, timeout: float) -> str:
    return (
        f"{who} come to {address()} within {timeout:g} seconds; start all machines with this address and "
        "port, or wait longer by --timeout."
    )


def _meet(store: Store, rank: int, count: int, timeout: float) -> str:
    """Wait until all processes of this start have come; return a name that no other start has.

    Each process has a token of its own. The main one collects a token of each rank that no start has used
    before, and answers it with the name.
    """
    token = uuid.uuid4().hex
    store.set(f"elmo_hf/token/{rank}", token)
    if rank == 0:
        _answer(store, token, count, timeout)
    try:
        return str(store.get(f"elmo_hf/start/{token}").decode())
    except RuntimeError as error:
        raise ElmoError(_not_all(f"not all of the {count} processes have", timeout)) from error


def _answer(store: Store, name: str, count: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        tokens = {rank: _new_token(store, rank) for rank in range(count)}
        missing = [rank for rank, token in tokens.items() if not token]
        if not missing:
            break
        if time.monotonic() > end:
            names = ", ".join(map(str, missing[:8])) + ", ..." * (len(missing) > 8)
            raise ElmoError(_not_all(f"processes {names} of {count} have not", timeout))
        time.sleep(POLL)
    for token in tokens.values():
        store.set(f"elmo_hf/start/{token}", name)


def _new_token(store: Store, rank: int) -> str:
    """The token of a process that waits to be answered, or an empty text."""
    key = f"elmo_hf/token/{rank}"
    token = store.get(key).decode() if store.check([key]) else ""
    return "" if store.check([f"elmo_hf/start/{token}"]) else str(token)


# ---- signs of life


class Watch:
    """Ends this process when another one gives no sign of life, as after a power cut.

    A process that dies closes its connections, which the others notice at once. A machine that loses its
    power or its network closes none, and the others would wait for hours. So each process counts in the
    store; the main one looks at all counts, and the others at its count.

    Args:
        report: called with the number of the lost process, or with None where the store is lost; it must end
            this process.
    """

    def __init__(
        self, store: Store, rank: int, count: int, timeout: float, report: Callable[[int | None], None]
    ) -> None:
        self.rank, self.report = rank, report
        self.store: Any = store
        self.others = [*range(1, count)] if rank == 0 else [0]
        self.period = min(5.0, timeout / 10)
        self.limit = timeout / self.period  # looks in a row without a change
        self.counts: dict[int | None, int] = dict.fromkeys([None, *self.others], 0)  # None: of this process
        self.has_stopped = threading.Event()
        for action in (self._count, self._look):
            threading.Thread(target=action, daemon=True).start()

    def stop(self) -> None:
        self.has_stopped.set()

    def _count(self) -> None:
        """Count, and read the counts of others, which may block where the store's machine is lost."""
        try:
            store = self.store.clone()  # a connection of its own, as an answer may take long
            while not self.has_stopped.wait(self.period):
                own = store.add(f"alive/{self.rank}", 1)
                self.counts = {None: own} | {other: store.add(f"alive/{other}", 0) for other in self.others}
        except RuntimeError:
            self._lose(None)

    def _look(self) -> None:
        """Looks are counted, and not seconds, because this process may have been suspended itself."""
        counts, looks = self.counts, dict.fromkeys(self.counts, 0)
        while not self.has_stopped.wait(self.period):
            now = self.counts
            looks = {other: (number + 1) * (now[other] == counts[other]) for other, number in looks.items()}
            counts = now
            if lost := [other for other, number in looks.items() if number >= self.limit]:
                self._lose(lost[0])
                return

    def _lose(self, other: int | None) -> None:
        """At a run's end, the store may go before this process has stopped the watch."""
        if not self.has_stopped.wait(self.period):
            self.report(other)
