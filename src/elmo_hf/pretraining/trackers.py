"""Trackers of experiments, such as tensorboard and trackio: those of accelerate, and those of the Trainer.

Numbers stay on this machine, unless an environment variable of the tracker, such as `WANDB_MODE=online`, says
otherwise.
"""

import os
from collections.abc import Collection, Sequence

from elmo_hf.errors import ElmoError, quoted

NONE = "none"
# What pip calls them, where it is another name.
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml"}
# Variables by which trackers of a service keep their numbers on this machine, for `wandb sync` and the like.
OFFLINE = {
    "wandb": ("WANDB_MODE", "offline"),
    "swanlab": ("SWANLAB_MODE", "offline"),
    "comet_ml": ("COMET_START_ONLINE", "0"),
}


def tracker_names(names: Sequence[str]) -> list[str]:
    """Each name once, and none of "none"."""
    names = list(dict.fromkeys(names))
    if NONE in names and len(names) > 1:
        raise ElmoError(f"trackers are none, or some of them, but not both: {' '.join(names)}.")
    return [name for name in names if name != NONE]


def check_trackers(names: Sequence[str], known: Collection[str], installed: Collection[str]) -> None:
    """Refuse a name that is unknown, or whose package is not installed."""
    for name in names:
        if name not in known:
            raise ElmoError(f"there is no tracker {quoted(name)}; there are {', '.join(known)}.")
        if name not in installed:
            package = PACKAGES.get(name, name)
            raise ElmoError(f"the tracker {name} is not installed; `pip install {package}`.")


def end_run(names: Sequence[str]) -> None:
    """wandb keeps its run open after training, and the next one of the process would write into it."""
    if "wandb" in names:
        import wandb

        wandb.finish()


def keep_offline(names: Sequence[str]) -> None:
    """Let none of these trackers send anything, unless the environment says otherwise."""
    for name in OFFLINE.keys() & set(names):
        os.environ.setdefault(*OFFLINE[name])
