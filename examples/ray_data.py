"""Vectors of texts by Ray Data, in as many processes as wanted; a run that was stopped goes on.

python examples/ray_data.py --model my-elmo --data reviews --output my-table --actors 2
pyarrow.parquet.read_table("my-table")["vectors"]    # a vector a row

The data are Parquet files with a column `id`, in which each number or name occurs once.
"""

import argparse
from pathlib import Path

import ray
from ray.data.checkpoint import CheckpointConfig

from elmo_hf import TINY, Embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--data", required=True, help="a folder of Parquet files")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--actors", type=int, default=1, help="processes; each loads the model once")
    options = parser.parse_args()
    output = Path(options.output).absolute()  # in a folder that all machines share
    done = CheckpointConfig(id_column="id", checkpoint_path=f"{output}-done")
    ray.data.DataContext.get_current().checkpoint_config = done
    ray.data.read_parquet(options.data).map_batches(
        Embed,
        fn_constructor_kwargs={"model": options.model, "layers": "average", "pool": "mean"},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.actors),
    ).write_parquet(str(output))


if __name__ == "__main__":
    main()
