"""The launches of docs/many-machines.md: the Slurm script runs on two "nodes", the others are parsed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from tests.helpers.documents import REPOSITORY, read_blocks
from tests.helpers.launcher import read_lines, small_run

BLOCKS = read_blocks(REPOSITORY / "docs" / "many-machines.md")
SCRIPT = next(block.text for block in BLOCKS if block.language == "bash")
# Each task has a folder of its own, as on nodes that share none.
SRUN = """#!/bin/bash
shift
for node in 0 1; do
    mkdir node-$node
    cp run.yaml node-$node
    touch node-$node/output.txt  # it is read even if the other node fails first
    (cd node-$node && SLURM_NODEID=$node exec "$@" > output.txt 2>&1) &
done
wait -n && wait -n
"""
# More names than a pipe holds: if only the first is read, this program fails, and by `pipefail` the job.
SCONTROL = """#!/bin/bash
printf '%s\\n' localhost other-{1..20000}
"""


def test_the_slurm_script_runs_on_two_nodes(tmp_path):
    write_program(tmp_path / "bin" / "srun", SRUN)
    write_program(tmp_path / "bin" / "scontrol", SCONTROL)
    write_program(tmp_path / "job.sh", SCRIPT)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    arguments = [str(word) for word in small_run(tmp_path, max_steps=4)]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    for name in ("--output", "--resume"):  # of the script's command line
        del options[name]
    lines = [f"{name.removeprefix('--')}: {value}\n" for name, value in options.items()]
    (tmp_path / "run.yaml").write_text("".join(lines), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": str(os.getpid())}
    run = subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment)
    outputs = [(tmp_path / f"node-{node}" / "output.txt").read_text(encoding="utf-8") for node in (0, 1)]
    assert run.returncode == 0, outputs
    assert "Done after 4 steps" in outputs[0]
    assert read_lines(tmp_path / "node-0" / "runs" / "news" / "log.jsonl")[0]["processes"] == 2
    assert (tmp_path / "node-0" / "runs" / "news" / "final" / "model.safetensors").is_file()
    assert not (tmp_path / "node-1" / "runs").exists()


def write_program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def test_the_job_of_kubernetes_starts_the_same_command():
    service, job = yaml.safe_load_all(next(block.text for block in BLOCKS if block.language == "yaml"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (command,) = container["args"]
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(command)
    assert words[:2] == ["exec", "torchrun"]
    options, script = parse_torchrun(words[2:])
    slurm_command = SCRIPT[SCRIPT.index("'torchrun ") + len("'torchrun ") : SCRIPT.rindex("'")]
    slurm_options, slurm_script = parse_torchrun(shlex.split(slurm_command.replace("\\\n", " ")))
    assert options.max_restarts == slurm_options.max_restarts == 3
    assert [word.rpartition("/")[2] for word in script] == [word.rpartition("/")[2] for word in slurm_script]
    # The pod of index 0 has the name of the job and its index, below that of the service.
    assert options.master_addr == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert str(job["spec"]["completions"]) == options.nnodes
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def parse_torchrun(words):
    numbers = {
        "$SLURM_NODEID": "0",
        "$JOB_COMPLETION_INDEX": "0",
        "$PORT": "1",
        "${SLURM_GPUS_ON_NODE:-1}": "1",
    }
    options = get_args_parser().parse_args([numbers.get(word, word) for word in words])
    assert options.module
    return options, [options.training_script, *options.training_script_args]


def test_the_command_of_accelerate_is_understood():
    text = BLOCKS[0].text.split("node2$")[0].removeprefix("node1$").replace("\\\n", " ")
    program, command, *words = shlex.split(text)
    assert (program, command) == ("accelerate", "launch")
    options = launch_command_parser().parse_args(words)
    assert (options.num_machines, options.num_processes, options.machine_rank) == (2, 16, 0)
    assert options.module
    assert options.training_script == "elmo_hf.pretraining"
