"""Start `training/pretrain.py`, or another program, in one or several processes, as `accelerate launch`
and `torchrun` do, in a fraction of a second: a server process imports everything once, and each run is a fork
of it.

    with Launcher() as launcher:
        run = launcher.start(["--config", ...], processes=2)
        os.killpg(run.group, signal.SIGKILL)
        run.wait()              # exit codes, one a process
        run.out, run.err
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.helpers.paths import REPOSITORY, TRAINING

TIMEOUT = 900  # seconds; enough for a slow machine, and an end to a run that hangs


class Program(NamedTuple):
    """A function that runs with the arguments of a command line."""

    module: str
    function: str
    name: str  # the first argument, such as a script's path


PRETRAIN = Program("training.pretrain", "main", "training/pretrain.py")


class Run:
    def __init__(self, folder):
        self.folder = folder

    @property
    def pids(self):
        """Of the processes by rank, without their workers."""
        return json.loads(_wait_for(self.folder / "pids"))

    @property
    def group(self):
        """The process group of all processes and their workers."""
        return self.pids[0]

    @property
    def living(self):
        """The processes that run now, and their workers, which may outlive them."""
        return living_pids(self.group)

    @property
    def workers(self):
        return sorted({*self.living} - {*self.pids})

    def signal_all(self, number):
        os.killpg(self.group, number)

    @property
    def has_ended(self):
        return (self.folder / "codes").exists()

    def go_on(self):
        """Let a run that was held go on."""
        (self.folder / "go-on").touch()

    def wait(self, seconds=TIMEOUT):
        return json.loads(_wait_for(self.folder / "codes", seconds))

    @property
    def out(self):
        return (self.folder / "out").read_text(encoding="utf-8")

    @property
    def err(self):
        """The lines of stderr without those of the progress bar."""
        text = (self.folder / "err").read_text(encoding="utf-8").replace("\r", "\n")
        lines = text.replace("pretrain.py: ", "\npretrain.py: ").split("\n")  # may follow the bar of another
        return "\n".join(line for line in lines if line.strip() and "words/s" not in line)


class Launcher:
    """modules: what the server imports, besides `training/pretrain.py`, before the first run."""

    def __init__(self, modules=("datasets",)):
        self.folder = Path(tempfile.mkdtemp())
        self.count = 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.launcher", PRETRAIN.module, *modules],
            stdin=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()  # closing stdin is not enough: processes forked since hold its other end open
        self.process.wait()

    def start(self, arguments, processes=1, hook="", program=PRETRAIN, hold=None):
        """Start a run. hook: code to execute in each process first, such as an injected fault; it sees the
        program's module, such as `pretrain`, and the process's `rank`. hold: after this step the run waits
        to be killed or for `go_on`, so that no test is too late to meet it."""
        command = {"arguments": [str(argument) for argument in arguments], "processes": processes}
        return self._send(command | {"hook": hook, "program": program, "hold": hold})

    def start_machines(self, arguments, processes=1, hook="", program=PRETRAIN, variables=(), hold=None):
        """Start a run on as many "machines" as there are lists of arguments, with so many processes on each.

        As on true machines, nobody ends the processes of one where those of another have ended. variables:
        of the environment, for each machine.
        """
        command = {
            "machines": [[str(argument) for argument in words] for words in arguments],
            "variables": [*variables] or [{}] * len(arguments),
            "processes": processes * len(arguments),
        }
        return self._send(command | {"hook": hook, "program": program, "hold": hold})

    def _send(self, command):
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        command |= {"folder": str(folder), "port": free_port()}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return Run(folder)


def wait_until(condition, seconds=TIMEOUT, what="what is waited for has not happened"):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} after {seconds} s")
        time.sleep(0.002)


def _wait_for(path, seconds=TIMEOUT):
    wait_until(path.exists, seconds, f"{path} is not there, see the errors beside it,")
    return path.read_text(encoding="utf-8")


def _write(path, text):
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


# ---- a small run


SMOKE = TRAINING / "runs" / "smoke.txt"


def write_corpus(folder, sizes=(150, 20, 60)):
    """Write files of uneven length; return the pattern for them."""
    lines = SMOKE.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, size in enumerate(sizes):
        start = sum(sizes[:number])
        (folder / f"text-{number}.txt").write_text("".join(lines[start : start + size]), encoding="utf-8")
    return folder / "text-*.txt"


def small_run(folder, output="run", **changes):
    """Arguments of a small run with all that is random: sampled softmax, dropout, shuffling, workers."""
    if not (folder / "text-0.txt").exists():
        write_corpus(folder)
    settings = {
        **{"data": folder / "text-*.txt", "vocab": TRAINING / "runs" / "smoke_vocab.txt", "workers": 1},
        **{"output": folder / output, "resume": "auto", "shuffle_sentences": 50, "seed": 7},
        **{"lstm_dim": 16, "projection_dim": 8, "char_embedding_dim": 4, "char_filters": "[[1,4],[2,8]]"},
        **{"num_highway_layers": 1, "num_hidden_layers": 1, "max_characters_per_token": 12},
        **{"rows": 6, "window": 5, "samples": 32, "epochs": 2, "save_every": 20, "log_every": 1},
    } | changes
    options = [(f"--{name}", value) for name, value in settings.items() if value is not None]
    return [word for name, value in options for word in ([name] if value is True else [name, value])]


def read_lines(path):
    """Read JSON lines, without a last one that is still being written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def steps_of(run):
    """The step entries of a run's log, without times."""
    steps = [entry for entry in read_lines(run / "log.jsonl") if entry["kind"] == "step"]
    return [{k: v for k, v in entry.items() if k not in ("words_per_second", "waited")} for entry in steps]


def memory_of_run(launcher, folder, at_steps, **changes):
    """Megabytes of a run's processes, workers included, after each of `at_steps`."""
    run = launcher.start(small_run(folder, **changes))
    sizes, log = [], folder / "run" / "log.jsonl"
    while len(sizes) < len(at_steps) and not run.has_ended:
        if log.exists() and log.read_bytes().count(b'"kind": "step"') >= at_steps[len(sizes)]:
            sizes.append(_megabytes(run.group))
        time.sleep(0.01)
    assert run.wait() == [0], run.err
    return sizes


def _megabytes(group):
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8") for pid in living_pids(group)]
    return sum(int(text.split("Pss:")[1].split()[0]) for text in texts) / 1024


def living_pids(group):
    """The processes of a group, without those that have ended and that their parent has not asked about."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if _group_and_state(pid)[0] == group and _group_and_state(pid)[1] not in "ZX"]


def _group_and_state(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None, "X"
    state, _, group = stat.rpartition(")")[2].split()[:3]  # after the name, which may have spaces
    return int(group), state


# ---- the server process


def serve(modules):
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        command = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            launch(Path(command["folder"]), command)


def launch(folder, command):
    pids = []
    for rank in range(command["processes"]):
        pid = os.fork()
        if pid == 0:
            work(folder, command, rank, pids[0] if pids else 0)
        pids.append(pid)
        os.setpgid(pid, pids[0])
    _write(folder / "pids", json.dumps(pids))
    codes = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        is_alone = "machines" not in command
        if is_alone and codes[pid] and not codes.keys() >= set(pids):  # the others would wait for it
            time.sleep(1)
            os.killpg(pids[0], signal.SIGKILL)
    _write(folder / "codes", json.dumps([codes[pid] for pid in pids]))
    os._exit(0)


def hold(step, go_on):
    from elmo_hf.pretraining import log

    write_step = log.RunLog.write_step

    def write_and_wait(self, **values):
        write_step(self, **values)
        if values["step"] >= step:
            wait_until(go_on.exists)

    log.RunLog.write_step = write_and_wait


def work(folder, command, rank, group):
    os.setpgid(0, group)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    if command["processes"] > 1:
        size = str(command["processes"])
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(command["port"])}
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
        }
    arguments = command.get("arguments")
    if "machines" in command:
        on_each = command["processes"] // len(command["machines"])
        machine, local = divmod(rank, on_each)
        if command["processes"] > 1:
            names = {"GROUP_RANK": machine, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": on_each}
            os.environ |= {name: str(number) for name, number in names.items()}
        os.environ |= command["variables"][machine]
        arguments = command["machines"][machine]
    program = Program(*command["program"])
    module = importlib.import_module(program.module)
    sys.argv = [program.name, *arguments]
    code = 1
    try:
        if command["hold"] and rank == 0:
            hold(command["hold"], folder / "go-on")
        exec(command["hook"], {program.module.rpartition(".")[2]: module, "rank": rank})
        getattr(module, program.function)()
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        import multiprocessing.util

        multiprocessing.util._exit_function()  # waits for workers, as the end of every program does
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1:])
