"""Archives from anywhere: wanted plain files come out, whatever else is in them is refused in a sentence."""

import gzip
import io
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from elmo_hf.convert import archives
from elmo_hf.convert.archives import extract, is_archive
from elmo_hf.errors import ElmoError

Content = bytes | dict[str, object]


def wanted(name: str) -> int | None:
    return {"weights.th": 1 << 40, "config.json": 1000, "a/b.txt": 1000}.get(name)


def member(name: str, data: bytes = b"x", **fields: object) -> bytes:
    """A header and its content."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    for field, value in fields.items():
        setattr(header, field, value)
    return header.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % 512)


def write(path: Path, *members: bytes, is_packed: bool = True) -> Path:
    content = b"".join(members) + b"\0" * 1024
    path.write_bytes(gzip.compress(content) if is_packed else content)
    return path


@pytest.mark.parametrize("is_packed", [True, False], ids=["tar.gz", "tar"])
def test_wanted_files_come_out_as_they_are(is_packed: bool, tmp_path: Path) -> None:
    weights = os.urandom(1 << 20) * 3 + b"x"
    files = {"a": b"", "./config.json": b"{}", "a/b.txt": b"y" * 512, "weights.th": weights, "z": b"z"}
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    with tarfile.open(tmp_path / "x", "w:gz" if is_packed else "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(folder)
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            header.pax_headers = {"comment": "ü" * 100}
            archive.addfile(header, io.BytesIO(data))
        long = tarfile.TarInfo("n" * 300)
        archive.addfile(long)
    (tmp_path / "out").mkdir()
    assert is_archive(tmp_path / "x")
    taken = extract(tmp_path / "x", wanted, tmp_path / "out")
    assert set(taken) == {"config.json", "a/b.txt", "weights.th"}
    assert {path.parent for path in taken.values()} == {tmp_path / "out"}
    assert {name: path.read_bytes() for name, path in taken.items()} == {
        "config.json": b"{}",
        "a/b.txt": b"y" * 512,
        "weights.th": weights,
    }
    assert len(list((tmp_path / "out").iterdir())) == 3


def refused(path: Path, match: str) -> None:
    """In one sentence, without much memory or reading, and without a file outside of the folder."""
    folder = path.parent / "out"
    folder.mkdir()
    before, start = set(path.parent.iterdir()), bytes_read()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ElmoError, match=match) as refusal:
        extract(path, wanted, folder)
    sentence = str(refusal.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert set(path.parent.iterdir()) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 150_000
    assert bytes_read() - start < 1 << 26


def bytes_read() -> int:
    """By this process, so far."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").split("rchar: ")[1].split()[0])


OUTSIDE = "leads out of the archive; do not use this archive"
ODD = "is a link or no plain file"
HUGE = 8**11 - 1  # the largest size of a header


@pytest.mark.parametrize(
    ("members", "match"),
    {
        "a name above": ([member("../weights.th")], OUTSIDE),
        "a name above inside": ([member("a/../../weights.th")], OUTSIDE),
        "an absolute name": ([member("/weights.th")], OUTSIDE),
        "a name of Windows": ([member("..\\weights.th")], OUTSIDE),
        "a link": ([member("weights.th", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], ODD),
        "a hard link": ([member("weights.th", b"", type=tarfile.LNKTYPE, linkname="../x")], ODD),
        "a link of a folder": ([member("a", b"", type=tarfile.SYMTYPE, linkname="/tmp")], ODD),
        "a device": ([member("weights.th", b"", type=tarfile.CHRTYPE)], ODD),
        "a pipe": ([member("weights.th", b"", type=tarfile.FIFOTYPE)], ODD),
        "a file with holes": ([member("weights.th", type=tarfile.GNUTYPE_SPARSE)], "."),
        "a name twice": ([member("config.json"), member("./config.json")], "'config.json' twice"),
        "a file that is too large": ([member("config.json", b"x" * 1001)], "has more than 1,000 bytes"),
        "a size behind the end": ([member("weights.th", b"x" * 2000)[:1000]], "truncated or damaged"),
        "the largest size": ([member("weights.th", b"x" * 999, size=HUGE)], "truncated or damaged"),
        "the largest size of another": ([member("q", b"x" * 999, size=HUGE)], "truncated or damaged"),
        "a long name without end": (
            [member("././@LongLink", b"x" * 999, size=HUGE, type=tarfile.GNUTYPE_LONGNAME)],
            "its headers are too long",
        ),
        "a long header without end": (
            [member("x", b"x" * 999, size=HUGE, type=tarfile.XHDTYPE)],
            "its headers are too long",
        ),
        "long names one after the other": (
            [member("././@LongLink", b"x", type=tarfile.GNUTYPE_LONGNAME)] * 5000,
            "truncated or damaged",
        ),
        "a header that says another size": (
            [member("x", b"21 size=999999999999\n", type=tarfile.XHDTYPE), member("weights.th")],
            "truncated or damaged",
        ),
        "a header that is longer than any number": (
            [member("x", b"9999999999999999999 x=1\n", type=tarfile.XHDTYPE), member("weights.th")],
            "truncated or damaged",
        ),
        "a header that says a name above": (
            [member("x", b"19 path=../../a.bc\n", type=tarfile.XHDTYPE), member("weights.th")],
            OUTSIDE,
        ),
        "nothing but rubbish": ([b"rubbish" * 1000], "truncated or damaged"),
    }.values(),
)
@pytest.mark.parametrize("is_packed", [True, False], ids=["tar.gz", "tar"])
def test_hostile_archives_are_refused(
    members: list[bytes], match: str, is_packed: bool, tmp_path: Path
) -> None:
    refused(write(tmp_path / "x.tar.gz", *members, is_packed=is_packed), match)


@pytest.mark.parametrize("name", ["weights.th", "other"])
def test_a_file_that_unpacks_to_far_more_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED_BYTES", 1 << 20)
    refused(
        write(tmp_path / "x.tar.gz", member(name, b"\0" * (1 << 25))), "unpacks to far more than its own size"
    )


def test_the_number_of_files_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 50)
    refused(write(tmp_path / "x.tar", *[member(f"f{n}", b"") for n in range(51)]), "holds more than 50 files")


@pytest.mark.parametrize("cut", [lambda n: n - 1, lambda n: n - 9, lambda n: n // 2, lambda n: 20])
def test_an_archive_that_ends_early_is_refused(cut: Callable[[int], int], tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar.gz", member("config.json"), member("weights.th", os.urandom(50_000)))
    content = path.read_bytes()
    path.write_bytes(content[: cut(len(content))])
    refused(path, "truncated or damaged")


def test_a_wrong_bit_is_noticed(tmp_path: Path) -> None:
    """By gzip's checksum, wherever it is."""
    path = write(tmp_path / "x.tar.gz", member("weights.th", os.urandom(5000)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(path, "truncated or damaged")


def test_what_follows_an_archive_is_not_read(tmp_path: Path) -> None:
    """Ten gigabytes of nothing."""
    (tmp_path / "out").mkdir()
    for is_packed in (True, False):
        path = write(tmp_path / "x.tar.gz", member("config.json", b"{}"), is_packed=is_packed)
        os.truncate(path, 10 * 2**30)
        start = bytes_read()
        (taken,) = extract(path, wanted, tmp_path / "out").values()
        assert taken.read_bytes() == b"{}"
        assert bytes_read() - start < 1 << 24
        taken.unlink()


def test_an_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = write(tmp_path / "inner.tar.gz", member("../x")).read_bytes()
    path = write(tmp_path / "x.tar.gz", member("weights.th", inner))
    (tmp_path / "out").mkdir()
    assert extract(path, wanted, tmp_path / "out")["weights.th"].read_bytes() == inner


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text" * 1000))
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c").write_bytes(os.urandom(2000))
    assert not any(is_archive(tmp_path / name) for name in ["a.gz", "b", "c", "missing"])
