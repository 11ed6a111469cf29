"""Files and folders that are written whole or not at all, and errors of one sentence."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from elmo_hf import files
from elmo_hf.errors import ElmoError, one_sentence, reason_of, sentence_of
from elmo_hf.files import (
    LOCK,
    append_line,
    checksum,
    clear_unfinished,
    locked_folder,
    new_folder,
    read_json,
    read_lines,
    whole_file,
    whole_folder,
    write_json,
    write_manifest,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(folder, text="new"):
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text(text, encoding="utf-8")


def text_of(folder):
    return (folder / "sub" / "weights").read_text(encoding="utf-8")


def break_off(context, work):
    """Something goes wrong after the work, before all is written."""
    with context as place:
        work(place)
        raise RuntimeError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        break_off(whole_file(path), lambda partial: partial.write_text("half", encoding="utf-8"))
    assert names(tmp_path) == ["a.json"]
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_a_write_that_fails_names_the_file_and_not_its_unfinished_name(tmp_path):
    for error in (
        OSError(28, "No space left on device"),
        OSError(28, "No space", str(tmp_path / "a.partial")),
    ):
        with pytest.raises(OSError, match=r"/a'$") as caught, whole_file(tmp_path / "a"):
            raise error
        assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match=r"/other'$"), whole_file(tmp_path / "a"):
        raise OSError(5, "Input/output error", str(tmp_path / "other"))


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "deep" / "final") as folder:
        fill(folder, "old")
    with pytest.raises(RuntimeError):
        break_off(whole_folder(tmp_path / "deep" / "final"), fill)
    assert names(tmp_path / "deep") == ["final"]
    assert text_of(tmp_path / "deep" / "final") == "old"
    with whole_folder(tmp_path / "deep" / "final") as folder:
        fill(folder)
    assert names(tmp_path / "deep") == ["final"]
    assert text_of(tmp_path / "deep" / "final") == "new"


def test_weights_that_a_disk_does_not_take_are_an_error_of_the_system(tmp_path):
    """safetensors raises an error of its own."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"final'$") as caught, whole_folder(tmp_path / "final") as folder:
            save_file({"weight": torch.zeros(5000)}, folder / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in sentence_of(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "left", [[".unfinished-final"], [".unfinished-final-old"], [".unfinished-final", ".unfinished-final-old"]]
)
def test_what_a_kill_has_left_is_no_obstacle(tmp_path, left):
    for name in ["final", *left]:
        (tmp_path / name).mkdir()
        fill(tmp_path / name, "old")
    with whole_folder(tmp_path / "final") as folder:
        fill(folder)
    assert names(tmp_path) == ["final"]
    assert text_of(tmp_path / "final") == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_others_may_read_a_folder_as_the_umask_says(tmp_path, umask, mode):
    """safetensors makes files that only their owner may read."""
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "final") as folder:
            fill(folder)
            (folder / "sub" / "weights").chmod(0o600)
            save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    finally:
        os.umask(before)
    for path in ("sub/weights", "model.safetensors"):
        assert (tmp_path / "final" / path).stat().st_mode & 0o777 == mode


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    """The old folder has been renamed, and the new one not yet."""
    (tmp_path / ".unfinished-final-old").mkdir()
    fill(tmp_path / ".unfinished-final-old", "old")
    with pytest.raises(RuntimeError):
        break_off(whole_folder(tmp_path / "final"), fill)
    assert names(tmp_path) == ["final"]
    assert text_of(tmp_path / "final") == "old"


def make(path, kind, other):
    if kind == "file":
        path.write_text("x")
    elif kind == "folder":
        path.mkdir()
        (path / "a").write_text("x")
    else:
        path.symlink_to({"link": other, "loop": path, "dangling": "/nowhere/a"}[kind])


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "loop", "dangling"])
def test_strays_of_any_kind_are_no_obstacle(tmp_path, monkeypatch, kind, swaps):
    """Also as the name that is written itself, and where the system cannot swap two names."""
    if not swaps:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    other = tmp_path / "other"
    make(other, "folder", None)
    for name in ("final", ".unfinished-final", ".unfinished-final-old", "log.partial"):
        make(tmp_path / name, kind, other)
    with whole_folder(tmp_path / "final") as folder:
        fill(folder)
    with whole_file(tmp_path / "log") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["final", "log", "other"]
    assert not (tmp_path / "final").is_symlink()
    assert text_of(tmp_path / "final") == "new"
    assert names(other) == ["a"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two names")
def test_a_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    """At no time is there neither the old one nor the new one."""
    for text in ("old", "new"):
        with monkeypatch.context() as patch, whole_folder(tmp_path / "final") as folder:
            fill(folder, text)
            if text == "new":
                patch.setattr(files.Path, "rename", None)
    assert text_of(tmp_path / "final") == "new"
    assert names(tmp_path) == ["final"]


def test_strays_are_cleared_or_get_their_name_back(tmp_path):
    for name in (".unfinished-a-old", ".unfinished-b-old", ".unfinished-c", "b"):
        make(tmp_path / name, "folder", None)
    for path in sorted(tmp_path.glob(".unfinished-*")):
        clear_unfinished(path)
    assert names(tmp_path) == ["a", "b"]


# ---- reading and appending


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log.jsonl"
    append_line(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, limits[1]))
    try:
        with pytest.raises(ElmoError, match=r"log\.jsonl cannot be written \(File too large\); make room"):
            append_line(path, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"
    assert list(read_lines(path)) == [b"first\n", b"third\n"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fifo", "is not a plain file; remove it"),
        ("folder", "is not a plain file; remove it"),
        ("loop", "is not a plain file; remove it"),
        ("device", "is not a plain file; remove it"),
        ("dangling", "cannot be read (No such file or directory)"),
        (b"[" * 100_000, "is no JSON; it is damaged"),
        (b"\xff", "is no JSON; it is damaged"),
        (b"9" * 5000, "is no JSON; it is damaged"),
        (b"1" * 3000, "has more than 2,000 bytes"),
    ],
)
def test_a_file_that_is_not_json_is_one_sentence(tmp_path, kind, message):
    path = tmp_path / "a.json"
    if isinstance(kind, bytes):
        path.write_bytes(kind)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        make(path, kind, None)
    with pytest.raises(ElmoError) as error:
        read_json(path, 2000 if message.startswith("has") else 2**20)
    assert str(error.value) == f"{path} {message}."


def test_an_endless_line_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 50)
    (tmp_path / "log").write_text("short\n" + "a" * 100)
    lines = read_lines(tmp_path / "log")
    assert next(lines) == b"short\n"
    with pytest.raises(ElmoError, match="log, line 2 has more than 50 bytes"):
        next(lines)


def test_a_new_folder_must_be_new(tmp_path):
    (tmp_path / "used").mkdir()
    fill(tmp_path / "used", "old")
    with pytest.raises(ElmoError, match="is not an empty folder"), new_folder(tmp_path / "used"):
        pass
    with (
        pytest.raises(ElmoError, match=r"cannot be written \(No space left\)"),
        new_folder(tmp_path / "deep" / "new"),
    ):
        raise OSError(28, "No space left")
    assert names(tmp_path) == ["used"]
    assert text_of(tmp_path / "used") == "old"


def test_a_manifest_has_every_file(tmp_path):
    fill(tmp_path)
    write_manifest(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == {"files": {"sub/weights": checksum(tmp_path / "sub" / "weights")}}
    assert manifest["files"]["sub/weights"]["bytes"] == 3


# ---- one program in a folder

HOLD = """
import multiprocessing, os, sys, time
from pathlib import Path
from elmo_hf.files import locked_folder
def work():
    print(os.getpid(), flush=True)
    time.sleep(600)
with locked_folder(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another program that holds the lock of `tmp_path / "run"` and has forked a worker."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.worker = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(process.worker, signal.SIGKILL)


def is_refused(folder, message):
    with pytest.raises(ElmoError, match=message) as error, locked_folder(folder):
        pass
    assert str(error.value).endswith(".")
    return True


def test_a_second_program_is_told_who_holds_the_folder(tmp_path, holder):
    assert is_refused(tmp_path / "run", rf"run is in use by process {holder.pid} on .* \(-c, since 20")
    assert is_refused(tmp_path / "run", "wait until it has ended")
    with locked_folder(tmp_path / "other"):
        assert names(tmp_path / "other") == [LOCK]


def test_a_killed_holder_has_no_lock_although_its_worker_lives(tmp_path, holder):
    holder.kill()
    holder.wait()
    os.kill(holder.worker, 0)
    assert names(tmp_path / "run") == [LOCK]
    with locked_folder(tmp_path / "run"):
        assert is_refused(tmp_path / "run", f"in use by process {os.getpid()} ")
    assert names(tmp_path / "run") == []


def test_a_fork_that_ends_leaves_the_lock_to_its_parent(tmp_path):
    lock = locked_folder(tmp_path / "run")
    with lock:
        if (child := os.fork()) == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert is_refused(tmp_path / "run", "in use")


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with locked_folder(tmp_path / "deep" / "run"):
        assert names(tmp_path / "deep" / "run") == [LOCK]
    assert names(tmp_path) == []
    with locked_folder(tmp_path / "deep" / "run"):
        fill(tmp_path / "deep" / "run")
    assert names(tmp_path / "deep" / "run") == ["sub"]


def test_a_lock_file_that_is_removed_meanwhile_is_not_the_lock(tmp_path, monkeypatch):
    """The last holder removes it between our opening and our lock."""
    take, taken = files._take, []

    def take_late(descriptor, folder):
        if not taken:
            (folder / LOCK).unlink()
        taken.append(descriptor)
        take(descriptor, folder)

    monkeypatch.setattr(files, "_take", take_late)
    with locked_folder(tmp_path):
        assert len(taken) == 2
        assert is_refused(tmp_path, "in use")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 40, b"[" * 100_000, b"\xff", b"[]", b'{"process": 1}', b'{"process": 1e999, "host": '],
)
def test_what_a_lock_file_says_is_distrusted(tmp_path, content):
    with locked_folder(tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        assert is_refused(tmp_path, "in use by another program;")


def test_what_a_lock_file_says_is_cut(tmp_path):
    with locked_folder(tmp_path):
        told = {"process": 9, "host": "a\n\x1b[31m" + "b" * 300, "program": "c", "since": "d"}
        (tmp_path / LOCK).write_text(json.dumps(told))
        assert is_refused(tmp_path, r"in use by process 9 on a\[31mb{53} \(c, since d\)")


@pytest.mark.parametrize("kind", ["link", "loop", "fifo", "folder", "hard link"])
def test_a_lock_file_of_another_kind_is_refused(tmp_path, kind):
    run, other = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    other.write_text("precious")
    make = {
        "link": lambda path: path.symlink_to(other),
        "loop": lambda path: path.symlink_to(path),
        "fifo": os.mkfifo,
        "folder": lambda path: path.mkdir(),
        "hard link": lambda path: os.link(other, path),
    }
    make[kind](run / LOCK)
    assert is_refused(run, r"run/\.elmo_hf\.lock is not a plain file; remove it")
    assert other.read_text() == "precious"
    assert names(run) == [LOCK]


def test_a_folder_that_cannot_be_locked_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert is_refused(tmp_path / "file" / "run", r"run cannot be written \(Not a directory\); name another")

    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with locked_folder(tmp_path / "run"):
        pass
    assert "run cannot be locked (No locks available); start no second program" in capsys.readouterr().err


# ---- errors


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device", "a"), "No space left on device"),
        (ValueError("It is cut off. Download it again.\nOr not."), "It is cut off"),
        (ValueError("one line\nand more"), "one line"),
        (KeyError("weights"), "weights"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_reason_of_an_error_is_short(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (ElmoError("no model."), "no model.", 1),
        (ValueError("no\nmodel"), "no model.", 1),
        (OSError("no model."), "no model.", 1),
        (OSError(28, "No space left", "run/log"), "run/log: No space left.", 1),
        (OSError(28, "No space left"), "No space left.", 1),
        (BrokenPipeError(32, "Broken pipe"), "the program that reads the output has ended.", 1),
        (KeyboardInterrupt(), "stopped by Ctrl-C.", 130),
        (
            MemoryError("Unable to allocate 3 GiB"),
            "there is not enough memory (Unable to allocate 3 GiB);",
            1,
        ),
        (OSError(12, "Cannot allocate memory"), "there is not enough memory (Cannot allocate memory);", 1),
        (RuntimeError("CUDA out of memory. Tried"), "there is not enough memory (CUDA out of memory);", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), "there is not enough memory (", 1),
    ],
)
def test_a_command_ends_with_one_sentence(error, sentence, code, capsys):
    with pytest.raises(SystemExit) as end, one_sentence("elmo-hf"):
        raise error
    assert end.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"elmo-hf: {sentence}")
    assert printed.endswith(".\n")
    assert printed.count("\n") == 1


def test_a_question_has_no_full_stop(capsys):
    with pytest.raises(SystemExit), one_sentence("elmo-hf"):
        raise ElmoError("it has no words; is it the right file?")
    assert capsys.readouterr().err == "elmo-hf: it has no words; is it the right file?\n"


PRINT = """
import sys
from elmo_hf.errors import one_sentence
with one_sentence("elmo-hf"):
    if sys.argv[1] == "middle":
        for _ in range(100_000):
            print("words")
    print("words")
    if sys.argv[1] == "exit":
        sys.exit(3)
"""
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize(
    ("when", "code", "sentence"),
    [
        ("middle", 1, "elmo-hf: the program that reads the output has ended.\n"),
        ("end", 1, "elmo-hf: the program that reads the output has ended.\n"),
        ("exit", 3, ""),
    ],
)
def test_a_closed_pipe_is_one_sentence(when, code, sentence):
    reader, writer = os.pipe()
    command = [sys.executable, "-c", PRINT, when]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=BUFFERED) as process:
        os.close(reader)
        os.close(writer)
        assert process.stderr.read() == sentence
    assert process.returncode == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_an_output_that_is_full_is_one_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-c", PRINT, "end"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=BUFFERED)
    assert (ended.returncode, ended.stderr) == (1, "elmo-hf: <stdout>: No space left on device.\n")


def test_faults_of_the_program_are_not_hidden():
    for fault in (ZeroDivisionError, RuntimeError, KeyError):
        with pytest.raises(fault), one_sentence("elmo-hf"):
            raise fault
