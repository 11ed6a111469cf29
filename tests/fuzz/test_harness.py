"""Doors that are bad on purpose: the harness reports each fault, of the right case, and goes on."""

import ctypes
import json
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import cards, doors, good, harness, worker
from tests.fuzz.door import Case, Door, Fault, Refusal
from tests.fuzz.harness import run_door
from tests.fuzz.report import Report, table
from tests.fuzz.watch import MARKER, peak_megabytes, reset_peak


def refuse(case: Case) -> None:
    raise ValueError(f"{case.input / 'good.txt'} is bad; write it again.")


def several_lines(case: Case) -> None:
    raise Refusal(f"{case.input / 'good.txt'} is bad:\nwrite it again.")


def no_full_stop(case: Case) -> None:
    raise Refusal(f"{case.input / 'good.txt'} is bad")


def no_file(case: Case) -> None:
    raise ValueError("it is bad.")


def endless(case: Case) -> None:
    raise Refusal(f"{case.input / 'good.txt'} holds {'x' * 5000}.")


def raise_key_error(case: Case) -> None:
    raise KeyError("good.txt is bad.")


def exit_program(case: Case) -> None:
    sys.exit("good.txt is bad.")


def loop(case: Case) -> None:
    while True:
        pass


def wait(case: Case) -> None:
    os.mkfifo(case.output / "pipe")
    (case.output / "pipe").read_bytes()


def crash(case: Case) -> None:
    ctypes.string_at(0)


def be_killed(case: Case) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def use_memory(case: Case) -> int:
    return len(b"x" * (400 << 20))


def read_outside(case: Case) -> None:
    (case.outside / "secret.txt").read_text()


def read_by_relative_path(case: Case) -> None:
    open(f"{case.input}/../../outside/secret.txt").close()  # noqa: PTH123


def read_by_link(case: Case) -> None:
    (case.output / "link").symlink_to(case.outside / "secret.txt")
    (case.output / "link").read_text()


def read_in_c(case: Case) -> bytes:
    """h5py opens files without Python."""
    with h5py.File(case.outside / "secret.hdf5") as file:
        return file["char_embed"][()].tobytes()


def quote_secret(case: Case) -> None:
    raise ValueError(f"good.txt holds {MARKER}.")


def list_outside(case: Case) -> None:
    list(Path("/etc").iterdir())


def write_outside(case: Case) -> None:
    (case.outside / "new.txt").write_text("x")


def truncate_outside(case: Case) -> None:
    os.truncate(case.outside / "secret.json", 999)


def write_in_working_folder(case: Case) -> None:
    Path("x.txt").write_text("x")


def change_input(case: Case) -> None:
    (case.input / "good.txt").write_text("changed")


def remove_outside(case: Case) -> None:
    (case.outside / "secret.txt").unlink()


def connect(case: Case) -> None:
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", 9))


def leave_output(case: Case) -> None:
    (case.output / "half.txt").write_text("x")
    refuse(case)


def leave_temporary_file(case: Case) -> None:
    Path(tempfile.mkstemp()[1]).write_text("x")
    refuse(case)


def leave_partial(case: Case) -> None:
    (case.output / "x.txt.partial").write_text("x")


def start_program(case: Case) -> None:
    subprocess.run(["true"], check=True)


def unpickle(case: Case) -> None:
    pickle.loads(pickle.dumps(os.getcwd))


def run_file(case: Case) -> None:
    runpy.run_path(str(case.input / "code.py"))


def touch_canary(case: Case) -> None:
    os.close(os.open("CANARY", os.O_CREAT | os.O_WRONLY))


def be_wrong(case: Case) -> None:
    raise Fault("wrong", "a number is another.")


def accept(case: Case) -> str:
    (case.output / "result.txt").write_text((case.input / "good.txt").read_text())
    (case.output / "folder").mkdir()
    (case.output / "result.txt").rename(case.output / "folder" / "result.txt")
    return "good"


KINDS = {
    "": [refuse, accept],
    "unclear": [several_lines, no_full_stop, no_file, endless],
    "traceback": [raise_key_error, exit_program],
    "crash": [crash, be_killed],
    "memory": [use_memory],
    "wrong": [be_wrong],
    "outside": [read_outside, read_by_relative_path, read_by_link, read_in_c, quote_secret, list_outside],
    "left": [leave_output, leave_temporary_file, leave_partial],
    "code": [start_program, unpickle, run_file],
    "outside left": [write_in_working_folder, change_input],
    "outside code": [touch_canary],
}
KINDS["outside"] += [write_outside, remove_outside, truncate_outside, connect]
KINDS["hang"] = [loop, wait]  # the last, as they are run with other limits
EXPECTED = {function: set(kinds.split()) for kinds, functions in KINDS.items() for function in functions}
BAD = list(EXPECTED)


def prepare(folder: Path) -> None:
    (folder / "good.txt").write_text("good")
    (folder / "code.py").write_text("x = 1\n")


def damage(case: Case) -> str:
    return f"{BAD[case.number].__name__} {case.rng.random()}"


DOOR = Door("bad", prepare, damage, lambda case: BAD[case.number](case), follows_links=False)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All cases of the bad door, in one run."""
    session, first_hang = tmp_path_factory.mktemp("session"), len(BAD) - len(KINDS["hang"])
    with pytest.MonkeyPatch.context() as patch:
        reset_peak()  # of the tests before
        patch.setattr(worker, "PEAK_MEGABYTES", peak_megabytes() + 50)
        outcomes = list(run_door(DOOR, range(first_hang), session, seed=0))
        patch.setattr(harness, "HANG_SECONDS", 0.1)
        patch.setattr(harness, "WAIT_SECONDS", 1.0)
        return outcomes + list(run_door(DOOR, range(first_hang, len(BAD)), session, seed=0))


def test_every_case_has_an_outcome(outcomes):
    assert [outcome["number"] for outcome in outcomes] == list(range(len(BAD)))


@pytest.mark.parametrize("function", BAD, ids=lambda function: function.__name__)
def test_faults(outcomes, function):
    outcome = outcomes[BAD.index(function)]
    assert {kind for kind, _ in outcome["faults"]} == EXPECTED[function], outcome


def test_results(outcomes):
    results = {function: outcomes[BAD.index(function)]["result"] for function in BAD}
    assert [results[function] for function in (refuse, accept, loop, crash)] == [
        "refused",
        "accepted",
        "hang",
        "crash",
    ]
    assert outcomes[BAD.index(loop)]["message"].startswith("hang in fuzz/test_harness.py")
    assert outcomes[BAD.index(crash)]["message"].startswith("exit code -11")


def test_a_case_alone_is_the_same(outcomes, tmp_path):
    number = BAD.index(raise_key_error)
    (outcome,) = run_door(DOOR, range(number, number + 1), tmp_path, seed=0)
    assert outcome["description"] == outcomes[number]["description"]
    assert outcome["faults"] == [list(fault) for fault in outcomes[number]["faults"]]
    assert (tmp_path / "case" / "in" / "good.txt").read_text() == "good"
    (outcome,) = run_door(DOOR, range(number, number + 1), tmp_path, seed=1)
    assert outcome["description"] != outcomes[number]["description"]


def test_a_door_that_cannot_be_prepared_is_no_result(tmp_path):
    door = Door("broken", lambda folder: 1 / 0, damage, refuse)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(run_door(door, range(3), tmp_path, seed=0))


def test_report(outcomes):
    report = Report("bad", seed=0)
    for outcome in [*outcomes, *outcomes]:
        report.add(outcome)
    content = report.content()
    assert content["files"] == 2 * len(BAD)
    assert (content["hang"], content["crash"], content["memory"]) == (4, 4, 2)
    assert content["left"] == 2 * sum("left" in kinds for kinds in EXPECTED.values())
    first = next(fault for fault in content["faults"] if fault["kind"] == "traceback")
    assert (first["count"], first["cases"][0]["case"]) == (2, BAD.index(raise_key_error))
    assert f"--door bad --case {BAD.index(loop)} --seed 0" in "\n".join(report.lines())
    header, _, row = table({"doors": {"bad": content}}).split("\n")
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert (cells["files"], cells["hangs"], cells["crashes"]) == (str(2 * len(BAD)), "4", "4")


@pytest.mark.parametrize(("function", "code"), [(refuse, 0), (raise_key_error, 1)])
def test_command(function, code, monkeypatch, tmp_path, capsys):
    counted = Door("one", prepare, lambda case: "", function)
    monkeypatch.setattr(doors, "DOORS", {"one": counted})
    output = tmp_path / "results" / "fuzz.json"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--files", "3", "--output", str(output)])
    assert command.main() == code
    assert json.loads(output.read_text())["doors"]["one"]["files"] == 3
    assert "| one | 3 |" in capsys.readouterr().out
    monkeypatch.setattr(command, "run_cases", lambda *_: pytest.fail("a door that is done is run again"))
    assert command.main() == code
    monkeypatch.setattr(sys, "argv", ["fuzz", "--table", str(output)])
    assert command.main() == 0
    keep = tmp_path / "kept"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--door", "one", "--case", "2", "--keep", str(keep)])
    assert command.main() == code
    assert (keep / "case" / "in" / "good.txt").exists()


def test_a_text_of_facts_that_looks_like_a_date(tmp_path):
    """YAML's own loaders refuse 2026-99-99 as a date; a card and its door take a text."""
    case = Case(tmp_path, tmp_path, 0, random.Random(0))
    case.output.mkdir()
    good.write_card(case.input)
    with (case.input / "facts.yaml").open("a", encoding="utf-8") as file:
        file.write("licence_name: 2026-99-99\n")
    assert "license_name: '2026-99-99'\n" in cards.enter_card(case)


@pytest.mark.parametrize("follows_links", [True, False])
def test_links(follows_links, tmp_path):
    door = Door("links", prepare, lambda case: "", read_by_link, follows_links=follows_links)
    (outcome,) = run_door(door, range(1), tmp_path, seed=0)
    assert bool(outcome["faults"]) != follows_links
