"""The number of threads: the user's choice, or the share of the cores that a process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from elmo_hf import threads
from elmo_hf.errors import ElmoError
from tests.helpers.launcher import read_lines, small_run


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """8 cores, no launcher, and a PyTorch that would use 8 threads."""
    for name in (threads.VARIABLE, *threads.LAUNCHERS, *threads.LOCAL_PROCESSES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


@pytest.mark.parametrize(
    ("environment", "launcher", "expected"),
    [
        ({}, "", 8),
        ({"OMP_NUM_THREADS": "3"}, "", 5),  # PyTorch has read the variable: 5 stands for its answer
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, "HOME=/", 8),
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, "HOME=/\0OMP_NUM_THREADS=1", 5),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2"}, "HOME=/", 4),
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "20"}, "HOME=/", 1),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, "", 2),
    ],
)
def test_the_default(environment, launcher, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5 if "OMP_NUM_THREADS" in environment else 8)
    monkeypatch.setattr(Path, "read_bytes", lambda path: launcher.encode())
    assert threads.default_threads() == expected


@pytest.mark.parametrize(("number", "is_of_launcher"), [("1", True), ("3", False)])
def test_where_the_launchers_environment_cannot_be_read(number, is_of_launcher, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr(os, "getppid", lambda: 0)
    assert threads.set_by_launcher() == is_of_launcher


def test_fewer_threads_of_the_users_stay(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)  # after torch.set_num_threads(3)
    assert threads.default_threads() == 3


def test_available_cores(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    monkeypatch.setattr(threads, "CPUS", tmp_path)
    monkeypatch.setattr(
        threads, "control_groups", lambda: [tmp_path / "v2", tmp_path / "v1", tmp_path / "no"]
    )
    assert threads.available_cores() == 5
    for cpu, siblings in enumerate(["0,4", "1", "2", "3", "0,4"]):  # two threads of one core
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert threads.available_cores() == 4
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "cpu.max").write_text("max 100000\n")
    assert threads.available_cores() == 4
    (tmp_path / "v2" / "cpu.max").write_text("250000 100000\n")
    assert threads.available_cores() == 3
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "v1" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.available_cores() == 3
    (tmp_path / "v1" / "cpu.cfs_quota_us").write_text("50000\n")
    assert threads.available_cores() == 1


def test_the_control_groups_of_this_process(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    text = "5:cpu,cpuacct:/jobs/7\n4:cpuset:/\n0::/user/8\n"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)
    names = ["cpu,cpuacct/jobs/7", "cpu,cpuacct/jobs", "cpu,cpuacct", "user/8", "user", "."]
    assert threads.control_groups() == [tmp_path / name for name in names]


def test_using_threads_ends_with_the_former_number(monkeypatch):
    monkeypatch.undo()
    with threads.using_threads(2) as number:
        assert number == torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_a_run_has_the_threads_that_were_asked_for_and_its_workers_one_each(launcher, tmp_path):
    path = tmp_path / "workers"
    hook = f"""
import torch, elmo_hf.corpus.windows as windows
info = windows.get_worker_info
def get_worker_info():
    if info() is not None:
        open({str(path)!r}, "a").write(f"{{torch.get_num_threads()}} ")
    return info()
windows.get_worker_info = get_worker_info
"""
    run = launcher.start(small_run(tmp_path, max_steps=2, threads=3), hook=hook)
    assert run.wait() == [0], run.err
    assert read_lines(tmp_path / "run" / "log.jsonl")[0]["threads"] == 3
    assert set(path.read_text().split()) == {"1"}


def test_accelerate_launch_uses_one_thread_and_so_does_a_run_that_asks_for_it(monkeypatch, tmp_path):
    """Of the documented command: accelerate sets the variable to 1, which the run passes over."""
    monkeypatch.undo()
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom elmo_hf.threads import available_cores, use_threads\n"
        "print(os.environ['OMP_NUM_THREADS'], use_threads(None) == available_cores(), use_threads(1))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(script)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "True", "1"]


@pytest.mark.parametrize("number", [0, -1, 5000, True, "2"])
def test_no_such_number_of_threads(number, tmp_path):
    from elmo_hf import embed

    with pytest.raises(ElmoError, match=f"threads must be 1 to 4096, but is {number!r}"):
        embed(["a b"], tmp_path / "out", tmp_path, threads=number)
    assert not (tmp_path / "out").exists()
