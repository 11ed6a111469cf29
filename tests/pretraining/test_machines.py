"""Several machines as one run, without a folder that they share; `tests/kills` kills them."""

import os
import re
import shutil
import signal
import socket
import time

import psutil
import pytest

from tests.helpers.agents import AGENT
from tests.helpers.launcher import free_port, read_lines, small_run, wait_until, write_corpus
from tests.helpers.two_machines import cut_cable, hook, two_machines
from tests.pretraining.test_resuming import (
    assert_every_sentence_once,
    assert_same_end,
    end,
    last_step,
    wait_for_step,
)

SIZES = (50, 8, 22)  # lines of the files: about 60 steps
MODEL_OF_SMALL_RUN = [
    *("lstm_dim", "projection_dim", "char_embedding_dim", "char_filters", "num_highway_layers"),
    *("num_hidden_layers", "max_characters_per_token", "vocab"),
]
FIRST_STEPS, NEXT_STEPS = 12, 30


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory):
    """An undisturbed run of two processes on one machine."""
    folder = tmp_path_factory.mktemp("whole")
    write_corpus(folder, SIZES)
    end(launcher, small_run(folder, "run", audit=True, save_every=5), 2)
    return folder / "run"


def on_machines(folder, count=2, **changes):
    """The arguments of each machine, with an output folder of its own."""
    if not (folder / "text-0.txt").exists():
        write_corpus(folder, SIZES)
    changes = {"audit": True, "save_every": 5} | changes
    return [small_run(folder, f"machine-{number}/run", **changes) for number in range(count)]


def sentence_of(run, codes):
    """The only line on stderr, but for what the C++ code of torch prints."""
    assert run.wait() == codes, run.err
    lines = [line for line in run.err.split("\n") if line.startswith("pretrain.py: ")]
    assert len(lines) == 1, run.err
    assert lines[0].endswith(".")
    return lines[0]


def stop(run, output, step):
    wait_for_step(run, output, step)
    os.kill(run.pids[-1], signal.SIGTERM)  # one process, on the last machine
    run.go_on()
    assert {*run.wait()} == {143}, run.err


def test_a_machine_that_is_replaced_by_an_empty_one(launcher, tmp_path, whole):
    """All is in the folder of machine 0. What machine 1 receives is removed when it has been read."""
    arguments = on_machines(tmp_path)
    run = launcher.start_machines(arguments, hold=FIRST_STEPS)
    stop(run, tmp_path / "machine-0" / "run", FIRST_STEPS)
    assert not (tmp_path / "machine-1").exists()
    run = launcher.start_machines(arguments)
    assert run.wait() == [0, 0], run.err
    assert run.out.startswith("Resuming after step ")
    assert not (tmp_path / "machine-1").exists()
    assert_same_end(tmp_path / "machine-0" / "run", whole)
    assert_every_sentence_once(tmp_path / "machine-0" / "run", SIZES, epochs=2)


def test_other_numbers_of_machines_and_processes(launcher, tmp_path):
    """2, 3 and 1 machines with 1, 2 and 1 processes: no sentence is lost or read twice."""
    output = tmp_path / "machine-0" / "run"
    for machines, processes, step in ((2, 1, FIRST_STEPS), (3, 2, NEXT_STEPS)):
        run = launcher.start_machines(on_machines(tmp_path, machines), processes, hold=step)
        stop(run, output, step)
    run = launcher.start_machines(on_machines(tmp_path, 1))
    assert run.wait() == [0], run.err
    facts = [entry["processes"] for entry in read_lines(output / "log.jsonl") if "processes" in entry]
    assert facts == [2, 6, 1]
    assert_every_sentence_once(output, SIZES, epochs=2)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["machine-0"]


def test_a_copy_that_is_not_that_of_the_main_machine_is_not_used(launcher, tmp_path, whole):
    """Machine 1 has the same checkpoint with a damaged file."""
    arguments = on_machines(tmp_path)
    stop(launcher.start_machines(arguments, hold=FIRST_STEPS), tmp_path / "machine-0" / "run", FIRST_STEPS)
    other = shutil.copytree(tmp_path / "machine-0", tmp_path / "machine-1") / "run"
    weights = max(other.glob("checkpoint-*")) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert launcher.start_machines(arguments).wait() == [0, 0]
    assert_same_end(tmp_path / "machine-0" / "run", whole)
    assert weights.read_bytes() == content
    assert not list(other.glob(".unfinished*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 8}, "has seed 8, and machine 0 (HOST) 7; start all machines with the same settings."),
        ({"data": "FOLDER/no/text-*.txt"}, ": there is no file FOLDER/no/text-*.txt."),
        (
            {"data": "FOLDER/text-0.txt"},
            "has another text than machine 0 (HOST): the number of its files is 1, not 3; copy",
        ),
        (
            {"data": "FOLDER/other/text-*.txt"},
            "file 2 of 3, FOLDER/other/text-1.txt, has another sha256; copy",
        ),
        (
            {"vocab": "FOLDER/vocab.txt"},
            "has the vocabulary DIGEST, and machine 0 (HOST) DIGEST; use the same",
        ),
        ({"vocab": "FOLDER/no.txt"}, ": there is no vocabulary FOLDER/no.txt."),
    ],
)
def test_what_machine_1_lacks_or_has_otherwise(launcher, tmp_path, changes, message):
    """One sentence names the machine, and nothing is written on either."""
    main, _ = on_machines(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_corpus(other, SIZES)
    (other / "text-1.txt").write_bytes((tmp_path / "text-1.txt").read_bytes().swapcase())
    words = main[main.index("--vocab") + 1].read_text(encoding="utf-8").split("\n")
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-2], "zyzzyva", ""]), encoding="utf-8")
    changes = {name: str(value).replace("FOLDER", str(tmp_path)) for name, value in changes.items()}
    arguments = small_run(tmp_path, "machine-1/run", audit=True, save_every=5, **changes)
    sentence = sentence_of(launcher.start_machines([main, arguments]), [1, 1])
    sentence = re.sub(r"\b[0-9a-f]{12}\b", "DIGEST", sentence)
    host = socket.gethostname()
    assert sentence.startswith(f"pretrain.py: machine 1 ({host})")
    assert message.replace("FOLDER", str(tmp_path)).replace("HOST", host) in sentence
    assert not (tmp_path / "machine-0").exists()
    assert not (tmp_path / "machine-1").exists()


OTHER_VERSION = """
from elmo_hf.pretraining import processes
if rank == 1:
    versions = processes.installed_versions
    processes.installed_versions = lambda: versions() | {"torch": "1.0"}
"""


def test_another_version_on_machine_1(launcher, tmp_path):
    sentence = sentence_of(launcher.start_machines(on_machines(tmp_path), hook=OTHER_VERSION), [1, 1])
    assert "has torch 1.0, and machine 0 (" in sentence
    assert sentence.endswith("; install the same version on all machines.")


OTHER_WEIGHTS = """
import torch
from elmo_hf.pretraining import learner
init = learner.Learner.__init__
def changed(self, model, settings, accelerator):
    if rank == 1:
        torch.nn.init.ones_(model.get_parameter({name!r}))
    init(self, model, settings, accelerator)
learner.Learner.__init__ = changed
"""


def test_a_new_run_begins_with_the_weights_of_machine_0(launcher, tmp_path, whole):
    """Another kind of processor may draw other last digits."""
    run = launcher.start_machines(on_machines(tmp_path), hook=OTHER_WEIGHTS.format(name="lm_head.weight"))
    assert run.wait() == [0, 0], run.err
    assert_same_end(tmp_path / "machine-0" / "run", whole)


def test_another_start_model_on_machine_1(launcher, tmp_path, whole):
    """Of its softmax, the words may be new and their rows random; the other weights must be the same."""
    changes = {"start": whole / "final", "resume": "no"} | dict.fromkeys(MODEL_OF_SMALL_RUN)
    arguments = on_machines(tmp_path, **changes)
    name = "elmo.token_encoder.projection.bias"
    run = launcher.start_machines(arguments, hook=OTHER_WEIGHTS.format(name=name))
    assert "has the model of --start" in sentence_of(run, [1, 1])


def test_a_later_checkpoint_on_another_machine(launcher, tmp_path, whole):
    """As after a change of the order of machines, or where the main one was replaced by an empty one."""
    shutil.copytree(whole, tmp_path / "machine-1" / "run")
    for resume in ("auto", "no"):
        sentence = sentence_of(launcher.start_machines(on_machines(tmp_path, resume=resume)), [1, 1])
        assert f"has {tmp_path}/machine-1/run/checkpoint-00000" in sentence
        assert ", which keeps the checkpoints of all, has none; copy the folder there" in sentence
    assert not (tmp_path / "machine-0").exists()


FULL_AT_THE_COPY = """
import resource, signal
from elmo_hf.pretraining import sending
begin = sending.Copy.begin
def full(self):
    begin(self)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sending.Copy.begin = full
"""


def test_no_room_for_the_copy(launcher, tmp_path):
    arguments = on_machines(tmp_path)
    output = tmp_path / "machine-0" / "run"
    stop(launcher.start_machines(arguments), output, FIRST_STEPS)
    log = (output / "log.jsonl").read_bytes()
    sentence = sentence_of(launcher.start_machines(arguments, hook=FULL_AT_THE_COPY), [1, 1])
    assert "machine 1 (" in sentence
    assert "cannot be written (File too large); make room for a copy of the checkpoint, or" in sentence
    assert not (tmp_path / "machine-1").exists()
    assert (output / "log.jsonl").read_bytes() == log


# ---- lost processes and machines


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_others(launcher, tmp_path, process, number):
    """A stopped process is like a machine without power: it closes no connection."""
    timeout = 60 if number == signal.SIGKILL else 5
    run = launcher.start_machines(on_machines(tmp_path, epochs=1000, timeout=timeout))
    wait_for_step(run, tmp_path / "machine-0" / "run", 3)
    pids = run.pids
    os.kill(pids[process], number)
    wait_for_end(run, pids[1 - process])
    if number == signal.SIGSTOP:
        os.kill(pids[process], signal.SIGKILL)
    codes = [-9, 1] if process == 0 else [1, -9]
    sentence = sentence_of(run, codes)
    if number == signal.SIGKILL:
        assert "another process of the run has ended; --resume auto continues the run." in sentence
    else:
        assert f"process {process} on machine {process} (" in sentence
        assert "gives no sign of life, so that the run ends; --resume auto continues it." in sentence


def wait_for_end(run, pid):
    wait_until(lambda: pid not in run.living)


def test_a_cut_cable_ends_both_machines(launcher, tmp_path):
    with two_machines() as machines:
        if not machines[0].prefix:
            pytest.skip("network namespaces need root and the command ip")
        run = launcher.start_machines(on_machines(tmp_path, epochs=1000, timeout=5), hook=hook(machines))
        wait_for_step(run, tmp_path / "machine-0" / "run", 3)
        cut_cable(machines[1])
        assert run.wait() == [1, 1]
    for process in (0, 1):
        assert f"pretrain.py: process {process} on machine {process} (" in run.err


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "not all of the 2 processes have come to 127.0.0.1:PORT within 1 seconds; start all"),
        ({"RANK": "1"}, "the main process is not reached at 127.0.0.1:PORT within 1 seconds ("),
        (
            {"RANK": "1", "MASTER_ADDR": "no.invalid"},
            "the main process is not reached at no.invalid:PORT within",
        ),
        ({"RANK": "0", "MASTER_ADDR": ""}, "the launcher's variables do not say how the processes meet ("),
        (
            {"RANK": "1", "MASTER_PORT": "99999"},
            "the launcher's variables do not say how the processes meet (",
        ),
    ],
)
def test_a_machine_that_nobody_meets(launcher, tmp_path, variables, message):
    """The second machine is missing, or address or port are wrong."""
    port = str(free_port())
    common = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    arguments = on_machines(tmp_path, 1, timeout=1)
    run = launcher.start_machines(arguments, variables=[common | variables])
    assert message.replace("PORT", port) in sentence_of(run, [1])
    assert not (tmp_path / "machine-0").exists()


def test_torchrun_starts_killed_processes_again(launcher, tmp_path, whole):
    """`--max-restarts` with `--resume auto`, on two networks where there is root: the run ends as if nothing
    had happened. First a process of one machine is killed, then that of the other."""
    output, victims = tmp_path / "machine-0" / "run", (1, 0)
    with two_machines() as machines:
        arguments = on_machines(tmp_path, timeout=60)
        run = launcher.start_machines(arguments, program=AGENT, hook=hook(machines))
        for victim in victims:
            wait_for_step(run, output, last_step(output) + 12)
            os.kill(child_of(run, run.pids[victim]), signal.SIGKILL)
            wait_for_resumption(run, output)
        assert run.wait() == [0, 0], run.err
    assert run.out.count("Resuming after step") == len(victims)
    assert_same_end(output, whole)
    assert_every_sentence_once(output, SIZES, epochs=2)
    assert not (tmp_path / "machine-1").exists()


def child_of(run, pid):
    return next(child for child in run.living if psutil.Process(child).ppid() == pid)


def wait_for_resumption(run, output):
    resumed = run.out.count("Resuming")
    while run.out.count("Resuming") == resumed:
        assert not run.has_ended, run.err
        time.sleep(0.01)
