"""What a case does besides its result: files that it opens, programs that it starts, memory, files it leaves.

The audit hook, which must be quick and gets paths of all kinds, sees what Python opens. Libraries in C open
files without it; for those there are files outside that hold a marker, which must not come back (`MARKER` as
text, `MARKED_NUMBER` in arrays).
"""

import fnmatch
import os
import re
import struct
import sys
import sysconfig
from itertools import zip_longest
from pathlib import Path

from tests.helpers.paths import REPOSITORY

MARKER = "SECRET-MARKER-7b1e"
MARKED_NUMBER = 0.7083251953125  # a float32 and a float16 hold it exactly
MARKED_BYTES = [MARKER.encode(), struct.pack("<2f", MARKED_NUMBER, MARKED_NUMBER)]
LONGEST_SENTENCE = 2100  # as long as `one_sentence` lets it be
UNFINISHED = re.compile(r"\.partial$|^\.unfinished-|^\.?tmp|\.tmp$|~$|\.lock$|\.incomplete$")

LIBRARIES = tuple(
    {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"))}
    | {sys.prefix, sys.base_prefix, str(REPOSITORY), "/usr", "/lib", "/proc", "/sys"}
    | {f"{Path.home()}/{name}" for name in (".fonts", ".local/share/fonts")}
)
SYSTEM = {
    "/dev/null",
    "/dev/urandom",
    "/etc/mime.types",
    "/etc/localtime",
    "/etc/os-release",
    "/etc/ld.so.cache",
}
READS = {"os.listdir", "os.scandir"}
WRITES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.chmod", "os.chown"}
WRITES |= {"os.truncate", "os.utime", "shutil.rmtree", "shutil.move"}
STARTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pty.spawn",
    "pickle.find_class",
}
PROGRAMS = {"fc-list"}  # by which matplotlib looks for fonts
CONNECTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """An audit hook, which stays in its process for good and is active during a case."""

    def __init__(self, session: Path, may_write: tuple[str, ...], follows_links: bool) -> None:
        self.session, self.may_write, self.is_active = os.path.realpath(session), may_write, False
        self.follows_links = follows_links
        self.readable = tuple(f"{self.session}/{name}" for name in ("case/in", "case/out", "tmp", "cache"))
        self.writable = self.readable[1:]
        self.faults: list[tuple[str, str]] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple) -> None:
        if not self.is_active:
            return
        self.is_active = False  # what this hook does itself is not a case's
        try:
            self._see(event, args)
        except (OSError, ValueError, TypeError):  # of paths that are none, which fail in the call itself
            pass
        finally:
            self.is_active = True

    def _see(self, event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            if mode is None and not flags & WRITING and not os.path.isabs(path):
                return  # by os.open, perhaps in a folder that is open, which the event does not tell
            self._check_path("write" if flags & WRITING else "read", path)
        elif event in READS:
            self._check_path("list", args[0] if args[0] is not None else ".")
        elif event in WRITES:
            written = args[1:2] if event == "os.symlink" else args[:2]
            paths = [path for path in written if isinstance(path, str | bytes | os.PathLike)]
            last = args[-len(paths) :] if event != "os.truncate" else ()  # which ends with a length
            descriptors = [number for number in last if isinstance(number, int)]
            for path, descriptor in zip_longest(paths, descriptors):
                folder = os.readlink(f"/proc/self/fd/{descriptor}") if (descriptor or -1) > 2 else ""
                self._check_path("write", os.path.join(folder, os.fsdecode(path)), event)
        elif event in STARTS and str(args[0]) not in PROGRAMS:
            self.faults.append(("code", f"{event} {args!r:.200}"))
        elif event in CONNECTS:
            self.faults.append(("outside", f"{event} {args[1:]!r:.200}"))
        elif event == "exec" and getattr(args[0], "co_filename", "").startswith(self.session):
            self.faults.append(("code", f"the file {args[0].co_filename} was run"))
        elif event == "ctypes.dlopen" and args[0] and str(args[0]).startswith(self.session):
            self.faults.append(("code", f"the library {args[0]} was loaded"))

    def _check_path(self, what: str, path: object, event: str = "") -> None:
        if isinstance(path, int):
            return
        name = os.fsdecode(path)  # type: ignore[arg-type]
        if what != "write" and name.startswith(LIBRARIES) and ".." not in name:
            return
        if what != "write" and self.follows_links and _is_below(os.path.abspath(name), self.readable):
            return
        parent, last = os.path.split(os.path.abspath(name))
        # a removed or renamed link is the link itself
        name = os.path.join(os.path.realpath(parent), last) if event else os.path.realpath(name)
        if what == "write":
            is_allowed = _is_below(name, self.writable) or self._is_progress(name) or name in SYSTEM
        else:
            is_allowed = _is_below(name, self.readable + LIBRARIES) or name in SYSTEM
        if not is_allowed:
            self.faults.append(("outside", f"{what} {name.removeprefix(self.session)} {event}"))

    def _is_progress(self, name: str) -> bool:
        inside = name.removeprefix(f"{self.session}/case/")
        return any(fnmatch.fnmatch(inside, pattern) for pattern in self.may_write)

    # ---- files that are there before and after

    def listing(self) -> dict[str, tuple]:
        """Every file of the session but those of the cache, with what shows a change."""
        places = [self.session, *(f"{self.session}/{name}" for name in ("case", "outside", "tmp", "cwd"))]
        entries: dict[str, tuple] = {}
        waiting = [os.fsencode(place) for place in places[1:] if os.path.isdir(place)]
        while waiting:
            with os.scandir(waiting.pop()) as items:
                for item in items:
                    status = item.stat(follow_symlinks=False)
                    is_folder = item.is_dir(follow_symlinks=False)
                    name = os.fsdecode(item.path).removeprefix(self.session + "/")
                    entries[name] = () if is_folder else (status.st_size, status.st_mtime_ns, status.st_ino)
                    if is_folder:
                        waiting.append(item.path)
        if os.path.exists(f"{self.session}/canary"):
            entries["canary"] = ()
        return entries

    def changes(
        self, before: dict[str, tuple], after: dict[str, tuple], is_accepted: bool
    ) -> list[tuple[str, str]]:
        faults = []
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) == after.get(name):
                continue
            what = "made" if name not in before else "removed" if name not in after else "changed"
            place, last = name.split("/")[0], name.rsplit("/")[-1]
            is_unfinished = what == "made" and UNFINISHED.search(last)
            is_progress = any(
                fnmatch.fnmatch(name.removeprefix("case/"), pattern) for pattern in self.may_write
            )
            is_output = (name.startswith("case/out/") and is_accepted) or is_progress
            if name == "canary" or last.startswith("CANARY"):
                faults.append(("code", f"{name} was made"))
            elif place == "outside":
                faults.append(("outside", f"{name} was {what}"))
            elif is_unfinished or not is_output:
                faults.append(("left", f"{name} was {what}"))
        return faults


def _is_below(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(folder + "/") for folder in folders)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024


def unclear(sentence: str, folder: Path, places: tuple[str, ...] = ()) -> str | None:
    """What a refusal's sentence lacks: it has one line, an end, no endless quotation, and a file's name."""
    if len(sentence.splitlines()) != 1:
        return "not one line"
    if not sentence.endswith("."):
        return "no full stop at the end"
    if len(sentence) > LONGEST_SENTENCE + 2 * sentence.count(str(folder)) * len(str(folder)):
        return f"{len(sentence)} characters"
    names = {path.name for path in folder.rglob("*")} if str(folder) not in sentence else {""}
    names |= set(places)
    return None if any(name in sentence for name in names) else "no file's name"
