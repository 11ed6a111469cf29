"""The agent of `torchrun` on each machine, whose training processes are forks of it: they start in no time.

launcher.start_machines([arguments, arguments], program=AGENT, hook=two_machines.hook(...))
"""

import os

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.helpers.launcher import Program
from training import pretrain

AGENT = Program("tests.helpers.agents", "main", "training/pretrain.py")
RESTARTS = 3


def main():
    """As `torchrun --nnodes 2 --node-rank N --max-restarts 3 training/pretrain.py ...`"""
    machine = int(os.environ["GROUP_RANK"])
    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        run_id="none",  # as torchrun says
        nproc_per_node=1,
        rdzv_backend="static",
        rdzv_endpoint=f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
        rdzv_configs={"rank": machine, "timeout": 60},
        max_restarts=RESTARTS,
        monitor_interval=0.05,
        start_method="fork",
    )
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
        os.environ.pop(name, None)
    elastic_launch(config, pretrain.main)()
