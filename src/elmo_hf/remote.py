"""Files and folders that an address names, such as s3://bucket/texts/a.txt, by `fsspec`.

    for address in matching("s3://bucket/texts/*.txt"): ...
    file_size("s3://bucket/texts/a.txt")

What a library below raises is one sentence. Passwords and signatures of an address are in none, see `errors`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elmo_hf.errors import ElmoError, reason_of

EXTRAS = {"s3": "s3", "s3a": "s3"}  # of this package, which install what `fsspec` needs for an address
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "adl": "adlfs"}
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*)://")


def is_address(name: Any) -> bool:
    return _ADDRESS.match(str(name)) is not None


def protocol_of(address: str) -> str:
    match = _ADDRESS.match(address)
    return match[1].lower() if match else "file"


@contextmanager
def reachable(address: str, missing: str = "") -> Iterator[None]:
    """One sentence for whatever `fsspec` and libraries below it raise. `missing`: of what is not there."""
    try:
        yield
    except (ElmoError, MemoryError):
        raise
    except FileNotFoundError:
        sentence = f"{address} {missing}." if missing else f"there is no file {address}."
        raise ElmoError(sentence) from None
    except ImportError:
        raise ElmoError(f"{address} cannot be opened here; {_installation(protocol_of(address))}.") from None
    except Exception as error:  # of many libraries, and each has its own
        raise ElmoError(f"{address} cannot be reached: {reason_of(error)}.") from None


def _installation(protocol: str) -> str:
    if protocol in EXTRAS:
        return f"pip install 'elmo-hf[{EXTRAS[protocol]}]'"
    return f"pip install {PACKAGES.get(protocol, f'what fsspec needs for {protocol}://')}"


def file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from fsspec import available_protocols
    from fsspec.core import url_to_fs

    protocol = protocol_of(address)
    if protocol not in available_protocols():
        raise ElmoError(f"{address} begins with {protocol}://, which is no protocol that fsspec knows.")
    with reachable(address):
        system, path = url_to_fs(address)
    return system, path


def local_path(address: str) -> Path | None:
    """The path of a file:// address, whose files are written and locked like any others."""
    return Path(file_system(address)[1]) if protocol_of(address) in ("file", "local") else None


def matching(address: str) -> list[str]:
    """The addresses that one with `*` stands for, sorted; of any other, itself. What lies behind http is not
    looked at before it is read."""
    protocol = protocol_of(address)
    if protocol in ("http", "https"):
        return [address]
    system, path = file_system(address)
    with reachable(address):
        if "*" in path:
            names = sorted(name for name in system.glob(path) if system.isfile(name))
            if not names:
                raise ElmoError(f"there is no file {address}.")
            return [system.unstrip_protocol(name) for name in names]
        if system.isdir(path):
            raise ElmoError(f"{address} is a folder; say {address.rstrip('/')}/* for the files in it.")
        system.info(path)
    return [address]


def file_size(name: str) -> int:
    """The bytes of a file or of what an address names, as they are there."""
    if not is_address(name):
        return Path(name).stat().st_size
    system, path = file_system(name)
    with reachable(name):
        size = system.size(path)
    if size is None:
        raise ElmoError(f"{name} does not say how many bytes it has; download it, and name the file.")
    return int(size)
