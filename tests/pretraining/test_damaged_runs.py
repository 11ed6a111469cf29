"""Runs that meet damaged files, strays of a kill, another run, a full disk, no memory, or a closed output.

Each ends with one sentence and an exit code that is not 0, and goes on to the weights of an undisturbed run.
"""

import json
import os
import shutil
import signal

import pytest

from elmo_hf.errors import ElmoError
from elmo_hf.files import LOCK, locked_folder
from elmo_hf.pretraining.audit import cut_audit
from elmo_hf.pretraining.log import cut_log, read_log
from tests.helpers.launcher import read_lines, small_run, steps_of

SMALL = {"max_steps": 14, "save_every": 5, "workers": 0}


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory):
    """The folder of an undisturbed run in a number of processes."""
    folder, runs = tmp_path_factory.mktemp("whole"), {}

    def run(processes=1):
        if processes not in runs:
            runs[processes] = folder / str(processes)
            end(launcher, small_run(folder, runs[processes].name, audit=True, **SMALL), processes)
        return runs[processes]

    return run


def end(launcher, arguments, processes=1):
    run = launcher.start(arguments, processes)
    assert run.wait() == [0] * processes, run.err


def ends_as_undisturbed(launcher, arguments, output, expected, processes=1):
    end(launcher, arguments, processes)
    for name in ("final/model.safetensors", "checkpoint-0000014/training/optimizer.safetensors"):
        assert (output / name).read_bytes() == (expected / name).read_bytes()
    assert steps_of(output) == steps_of(expected)
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]
    return True


def sentence_of(run, processes=1):
    assert run.wait() == [1] * processes, run.err
    assert run.err.startswith("pretrain.py: ")
    assert run.err.endswith(".")
    assert run.err.count("\n") == 0, run.err
    return run.err


# ---- another run in the folder


def test_a_second_run_is_refused_before_it_writes(launcher, tmp_path):
    end(launcher, small_run(tmp_path, **SMALL | {"max_steps": 6}))
    output = tmp_path / "run"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with locked_folder(output):
        message = sentence_of(launcher.start(small_run(tmp_path, **SMALL), 2), 2)
        assert f"{output} is in use by process {os.getpid()} on " in message
        assert len(read_log(output)) > 6  # readers need no lock
        after = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        assert after.pop(output / LOCK)
        assert after == before


def test_a_running_run_holds_its_folder(launcher, tmp_path):
    run = launcher.start(small_run(tmp_path, epochs=1000, workers=1), 2)
    while not read_lines(tmp_path / "run" / "log.jsonl"):
        assert not run.has_ended, run.err
    assert f"in use by process {run.group} on" in sentence_of(launcher.start(small_run(tmp_path)))
    os.killpg(run.group, signal.SIGKILL)
    run.wait()
    with locked_folder(tmp_path / "run"):
        pass


# ---- damaged files


def damage(path, kind):
    content = path.read_bytes()
    lines = content.split(b"\n")
    path.unlink()
    if kind in ("pipe", "folder"):
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    elif kind in ("loop", "device"):
        path.symlink_to({"loop": path, "device": "/dev/zero"}[kind])
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(10 * 2**30)
    else:
        middle = {
            "zeros": b"\x00" * 40,
            "deep": b"[" * 100_000,
            "bytes": b'{"kind": "\xff"}',
            "types": b'{"kind": "step", "step": [1], "text": {}}',
            "large": b'{"kind": "step", "loss": 1, "words": 1, "words_per_second": 1, "step": 1'
            + b"0" * 400
            + b"}",
            "digits": b'{"kind": "end", "step": ' + b"9" * 5000 + b"}",
            "list": b"[1]",
        }[kind]
        path.write_bytes(b"\n".join([lines[0], middle, *lines[1:]]))


KINDS = ["pipe", "folder", "loop", "device", "sparse"]
LINES = ["zeros", "deep", "bytes", "types", "list"]


@pytest.mark.parametrize("kind", [*KINDS, *LINES, "large", "digits"])
def test_a_damaged_log_is_one_sentence(tmp_path, whole, kind):
    path = tmp_path / "log.jsonl"
    shutil.copy(whole() / "log.jsonl", path)
    damage(path, kind)
    for read in (lambda: cut_log(path, 14), lambda: read_log(tmp_path)):
        with pytest.raises(ElmoError, match=r"log\.jsonl") as error:
            read()
        assert len(str(error.value)) < 400
        assert str(error.value).endswith(".")


@pytest.mark.parametrize("kind", [*KINDS, *LINES])
def test_a_damaged_audit_is_one_sentence(tmp_path, whole, kind):
    path = tmp_path / "audit-0.jsonl"
    shutil.copy(whole() / "audit-0.jsonl", path)
    damage(path, kind)
    with pytest.raises(ElmoError, match=r"audit-0\.jsonl") as error:
        cut_audit(path, 14)
    assert str(error.value).endswith(".")


def test_a_run_with_a_damaged_log_or_audit_changes_nothing(launcher, tmp_path, whole):
    arguments = small_run(tmp_path, audit=True, **SMALL)
    for name in ("log.jsonl", "audit-0.jsonl"):
        output = shutil.copytree(whole(), tmp_path / "run", dirs_exist_ok=True)
        damage(output / name, "zeros")
        before = (output / name).read_bytes()
        assert f"{name}, line 2 is damaged" in sentence_of(launcher.start(arguments))
        assert (output / name).read_bytes() == before
    (output / "audit-0.jsonl").unlink()
    assert ends_as_undisturbed(launcher, arguments, output, whole())


def make(path, kind, other):
    if kind == "file":
        path.write_text("x")
    elif kind == "folder":
        path.mkdir()
        (path / "config.json").write_text("{}")
    else:
        path.symlink_to({"link": other, "loop": path}[kind])


@pytest.mark.parametrize("kind", ["file", "folder", "link", "loop"])
def test_strays_are_no_obstacle(launcher, tmp_path, whole, kind):
    """In a run that goes on, and in a finished one that is started again."""
    other, output, arguments = tmp_path / "other", tmp_path / "run", small_run(tmp_path, **SMALL)
    make(other, "folder", None)
    shutil.copytree(whole(), output)
    for name in ("checkpoint-0000014", "final"):
        shutil.rmtree(output / name)
        make(output / name, kind, other)
    run = launcher.start(arguments)
    assert run.wait() == [0], run.err
    assert "checkpoint-0000014 is damaged" in run.err or kind in ("file", "loop")
    names = [
        ".unfinished-final",
        ".unfinished-final-old",
        ".unfinished-checkpoint-0000014-old",
        ".unfinished-x",
    ]
    for name in [*names, "log.jsonl.partial", "checkpoint-9999999"]:
        if name != "checkpoint-9999999" or kind in ("file", "loop"):  # others are damaged checkpoints
            make(output / name, kind, other)
    assert ends_as_undisturbed(launcher, arguments, output, whole())
    assert [path.name for path in other.iterdir()] == ["config.json"]


# ---- no room, no memory, no output


FULL = """
from elmo_hf import files
from elmo_hf.pretraining import audit, log
import resource
append = files.append_line
def append_in_vain(path, line):
    size = path.stat().st_size if path.exists() else 0
    if NAME in path.name and size > 300:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, size + 9))
    append(path, line)
audit.append_line = log.append_line = append_in_vain
"""
FULL_AT_THE_END = """
from elmo_hf.pretraining.run import Run
import resource
write = Run._write_final
def write_in_vain(run):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    write(run)
Run._write_final = write_in_vain
"""


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("NAME = 'log'" + FULL, "log.jsonl cannot be written (File too large); make room and resume"),
        ("NAME = 'audit-1'" + FULL, "audit-1.jsonl cannot be written (File too large); make room and resume"),
        (FULL_AT_THE_END, "final could not be written (File too large); the last good checkpoint is"),
    ],
    ids=["log", "audit", "final"],
)
def test_a_full_disk_is_one_sentence(launcher, tmp_path, whole, hook, message):
    """In one of two processes."""
    output, arguments = tmp_path / "run", small_run(tmp_path, audit=True, **SMALL)
    assert message in sentence_of(launcher.start(arguments, 2, hook), 2)
    for path in output.glob("*.jsonl"):
        assert [json.loads(line) for line in path.read_bytes().splitlines()]
        assert path.read_bytes().endswith(b"\n")
    assert ends_as_undisturbed(launcher, arguments, output, whole(2), 2)


FAILS = """
import os
from elmo_hf.pretraining import learner
update = learner.Learner.update
def broken(self, windows, words, step):
    if step == 12 and rank in {ranks}:
        {action}
    return update(self, windows, words, step)
learner.Learner.update = broken
"""


@pytest.mark.parametrize(
    ("ranks", "action", "message"),
    [
        ((0,), "raise RuntimeError('CUDA out of memory. Tried')", "not enough memory (CUDA out of memory)"),
        ((0, 1), "raise MemoryError", "not enough memory"),
        ((1,), "raise OSError(5, 'Input/output error', 'a.txt')", "a.txt: Input/output error."),
        ((1,), "os._exit(1)", "another process of the run has ended; --resume auto continues the run."),
    ],
)
def test_an_error_of_one_process_ends_all(launcher, tmp_path, whole, ranks, action, message):
    """Those that wait for it end too, and one of them reports the error."""
    arguments = small_run(tmp_path, **SMALL)
    hook = FAILS.format(ranks=ranks, action=action)
    assert message in sentence_of(launcher.start(arguments, 2, hook), 2)
    if "exit" in action:
        assert ends_as_undisturbed(launcher, arguments, tmp_path / "run", whole(2), 2)


def test_a_killed_reader_of_the_text_ends_the_run(launcher, tmp_path):
    hook = FAILS.format(
        ranks=(0,),
        action="import multiprocessing; [child.kill() for child in multiprocessing.active_children()]",
    )
    message = sentence_of(launcher.start(small_run(tmp_path, save_every=5, epochs=1000), hook=hook))
    assert "a process that reads the text has been killed, or had no memory left" in message


def test_a_closed_output_is_reported_at_the_end(launcher, tmp_path, whole):
    """As of `| head`: the run goes on, but its exit code is not 0."""
    output, arguments = tmp_path / "run", small_run(tmp_path, **SMALL)
    closed = "import os\nreader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\nos.close(writer)"
    message = sentence_of(launcher.start(arguments, hook=closed))
    assert message == "pretrain.py: the program that reads the output has ended."
    assert steps_of(output) == steps_of(whole())
    assert ends_as_undisturbed(launcher, arguments, output, whole())


NAN_AFTER_THE_LAST_STEP = """
from elmo_hf.pretraining import learner
update = learner.Learner.update
def broken(self, windows, words, step):
    losses = update(self, windows, words, step)
    if step == 13:
        self.model.lm_head.bias.data[-1] = float("nan")
    return losses
learner.Learner.update = broken
"""


def test_weights_that_are_not_finite_are_not_saved(launcher, tmp_path, whole):
    """Of a word that no step draws any more, so that the loss does not show it."""
    output, arguments = tmp_path / "run", small_run(tmp_path, **SMALL)
    message = sentence_of(launcher.start(arguments, hook=NAN_AFTER_THE_LAST_STEP))
    assert "step 14: lm_head.bias has values that are not finite numbers; the last good checkpoint" in message
    assert ends_as_undisturbed(launcher, arguments, output, whole())


FAILS_AT_A_CHECKPOINT = """
from elmo_hf.pretraining import audit
entry_of = audit.entry_of
def broken(step, process, starts):
    if step == 10 and process == {process}:
        raise RuntimeError('DataLoader worker is killed by signal')  # as PyTorch does, at any time
    return entry_of(step, process, starts)
audit.entry_of = broken
"""


@pytest.mark.parametrize(("process", "processes"), [(0, 1), (1, 2)])
def test_no_checkpoint_hides_a_lost_entry(launcher, tmp_path, whole, process, processes):
    arguments = small_run(tmp_path, audit=True, **SMALL)
    run = launcher.start(arguments, processes, FAILS_AT_A_CHECKPOINT.format(process=process))
    sentence_of(run, processes)
    output, undisturbed = tmp_path / "run", whole(processes)
    assert not (output / "checkpoint-0000010").exists()
    assert ends_as_undisturbed(launcher, arguments, output, undisturbed, processes)
    for number in range(processes):
        name = f"audit-{number}.jsonl"
        assert read_lines(output / name) == read_lines(undisturbed / name)
