"""The door of a folder that is uploaded to the Hub."""

import json
import os
from pathlib import Path
from typing import Any

from elmo_hf.hub.push import prepare
from tests.fuzz import folders, json_values, models, raw_bytes
from tests.fuzz.door import Case, Door, Fault
from tests.helpers import hub_folders

REFERENCES: list[Any] = ["../../outside/secret.E", "..secret.E", "/etc/passwd", "os.system", "evil.E"]
REFERENCES += ["x/y--evil.E", "", ".", None, 5]
REFERENCES += [["evil.E", None], ["modeling_elmo.ElmoModel"], {"a": "b"}, "modeling_elmo", "results/x.E"]
REFERENCES += ["link.E", "a\nb.E"]
IMPORTS = ["from ..secret import x", "from ...outside.secret import x", "from .link import x"]
IMPORTS += ["from .nothing import y", "import os"]
IMPORTS += ["from . import a, b", "from .", "from .\0x import y", "from .evil import z\nfrom .evil import z"]
IMPORTS += ["from .a.b import c"]
IMPORTS += ["from .configuration_elmo import ElmoConfig", "\xff", "import .x", "from .evil2 import *"]
IMPORTS += ["from .Evil import a"]


def prepare_push(folder: Path) -> None:
    hub_folders.save_with_card(folder / "model")
    (folder / "words.txt").unlink(missing_ok=True)


def damage_push(case: Case) -> str:
    folder, rng = case.input / "model", case.rng
    choice = rng.random()
    for name, target in (("link.py", "secret.py"), ("link.safetensors", "secret.safetensors")):
        if rng.random() < 0.1:
            (folder / name).symlink_to(case.outside / target)
    (folder / "evil.py").write_text(rng.choice(IMPORTS) + "\nclass E: pass\n", encoding="utf-8")
    (folder / "evil2.py").write_text("from .evil import *\nfrom .evil2 import a\n")
    if choice < 0.35:
        return folders.damage(rng, folder, case.outside)
    if choice < 0.5:
        return link_folder(case, folder)
    if choice < 0.75:
        name = rng.choice(["config.json", "tokenizer_config.json"])
        maps = [
            {key: value}
            for key in ("AutoModel", "AutoConfig", "AutoTokenizer", "AutoX")
            for value in REFERENCES
        ]
        extra = [("auto_map", value) for value in (*maps, 5, [1], "x")] + models.CONFIG[-30:]
        return (
            add_to_map(case, folder / name)
            if rng.random() < 0.5
            else json_values.damage_file(rng, folder / name, extra, case.outside)
        )
    if choice < 0.85:
        path = rng.choice(sorted(folder.glob("*.py")))
        path.write_bytes(path.read_bytes() + b"\n" + rng.choice(IMPORTS).encode())
        return f"{path.name} imports more"
    path = rng.choice(
        [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    )
    if path.suffix == ".json":
        return json_values.damage_file(rng, path, (), case.outside)
    return raw_bytes.damage_file(rng, path)


def add_to_map(case: Case, path: Path) -> str:
    content, reference = json.loads(path.read_text(encoding="utf-8")), case.rng.choice(REFERENCES)
    content["auto_map"]["AutoModelForMaskedLM"] = reference
    path.write_text(json.dumps(content), encoding="utf-8")
    return f"{path.name}, auto_map has {reference!r} more"


def link_folder(case: Case, folder: Path) -> str:
    """`results` is a link, or has links and odd names in it."""
    rng, results = case.rng, folder / "results"
    if rng.random() < 0.3:
        for path in results.iterdir():
            path.unlink()
        results.rmdir()
        results.symlink_to(rng.choice([case.outside, Path(), Path("..")]))
        return f"results -> {results.readlink()}"
    name = rng.choice(
        [
            "x.png",
            "x.md",
            "secret.json",
            "perplexity-x.json",
            "a\nb.md",
            ".x.png",
            "x\\y.png",
            "..png",
            " .md",
        ]
    )
    (results / name).symlink_to(case.outside / rng.choice(["secret.txt", "secret.json"]))
    return f"results/{name} is a link outside"


def enter_push(case: Case) -> bytes:
    """What a dry run lists: plain files of the folder, under names without a way out, and their bytes."""
    folder = case.input / "model"
    plan = prepare(folder, hub_folders.NAME)
    plan.sizes()
    contents = []
    for name, content in plan.files.items():
        if name != os.path.normpath(name) or name.startswith(("/", "..")) or "\n" in name or "\\" in name:
            raise Fault("wrong", f"{name!r} would be a name on the Hub")
        if isinstance(content, Path):
            if not content.resolve().is_relative_to(folder.resolve()):
                raise Fault("outside", f"{name} would be {content.resolve()}")
            contents.append(content.read_bytes())
        else:
            contents.append(content)
    return b"\n".join(contents)


DOORS = [Door("push", prepare_push, damage_push, enter_push, follows_links=False)]
