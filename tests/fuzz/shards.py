"""The door of a folder whose weights are in several files, which an index names."""

import json
import pickle
import shutil
from pathlib import Path

import torch

from tests.fuzz import folders, good, json_values, models, safetensors_files
from tests.fuzz.door import Case, Door

INDEX = "model.safetensors.index.json"
SHARDS = ["../../outside/secret.safetensors", "../../outside/secret.bin", "/etc/passwd", "w.bin", "evil.bin"]
SHARDS += ["x.pt", "", "."]
SHARDS += ["..", "./model-00001-of-00002.safetensors", "sub/x.safetensors", "x" * 300 + ".safetensors"]
SHARDS += ["a\0b.safetensors"]
SHARDS += ["link.safetensors", "config.json", "~/x.safetensors", "http://x/y.safetensors"]
SHARDS += ["\ud800.safetensors", "nothing.safetensors"]


def damage_index(case: Case) -> str:
    index, rng = case.input / INDEX, case.rng
    choice = rng.random()
    shards = sorted(path.name for path in case.input.glob("model-*.safetensors"))
    add_shards(case, case.input / shards[0])
    if choice < 0.1:
        return folders.damage(rng, case.input, case.outside, [index.name, *shards])
    if choice < 0.2:
        return safetensors_files.damage(rng, case.input / rng.choice(shards))
    name = rng.choice(
        [*SHARDS, *SHARDS, str(case.outside / "secret.safetensors"), str(case.outside / "secret.bin")]
    )
    if choice < 0.6:
        return name_shard(case, index, name, rng.choice([1, 1, 100]))
    extra = [
        ("weight_map", {"a": name}),
        ("weight_map", {}),
        ("weight_map", 7),
        ("metadata", {"total_size": 2**60}),
        ("metadata", 5),
    ]
    return json_values.damage_file(rng, index, extra, case.outside)


def name_shard(case: Case, index: Path, name: str, count: int) -> str:
    content = json.loads(index.read_text())
    for weight in case.rng.sample(sorted(content["weight_map"]), min(count, len(content["weight_map"]))):
        content["weight_map"][weight] = name
    index.write_text(json.dumps(content))
    return f"{count} weights in {name[:80]!r}"


def add_shards(case: Case, shard: Path) -> None:
    """What an index of these names would read."""
    (case.input / "link.safetensors").symlink_to(case.outside / "secret.safetensors")
    (case.input / "evil.bin").write_bytes(pickle.dumps(models.Evil(case.folder.parent / "canary")))
    torch.save({"a": torch.zeros(1)}, case.input / "w.bin")
    torch.save({"a": models.Evil(case.folder.parent / "canary")}, case.input / "x.pt")
    (case.input / "sub").mkdir()
    shutil.copyfile(shard, case.input / "sub" / "x.safetensors")


DOORS = [Door("index", good.save_sharded, damage_index, models.enter_folder, follows_links=False)]
