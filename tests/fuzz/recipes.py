"""The door of a pretraining run's recipe, a YAML file of settings."""

import shutil
from dataclasses import fields
from pathlib import Path

import yaml

from elmo_hf.pretraining.settings import Settings, read_settings
from tests.fuzz import folders, json_values, raw_bytes, yaml_values
from tests.fuzz.door import Case, Door
from tests.helpers.paths import TRAINING


def prepare_recipe(folder: Path) -> None:
    shutil.copyfile(TRAINING / "runs" / "smoke_cpu.yaml", folder / "recipe.yaml")


def damage_recipe(case: Case) -> str:
    path, rng = case.input / "recipe.yaml", case.rng
    choice = rng.random()
    if choice < 0.08:
        return folders.damage(rng, case.input, None, [path.name])
    if choice < 0.25:
        return raw_bytes.damage_file(rng, path)
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) | {
        "schedule": "linear",
        "keep": 1,
        "start": None,
    }
    if choice < 0.5:
        name, value = rng.choice(sorted(settings)), rng.choice(yaml_values.VALUES)
        settings.pop(name)
        path.write_bytes((yaml.safe_dump(settings) + f"{name}: {value}\n").encode("utf-8", "surrogatepass"))
        return f"{name}: {value[:60]}"
    settings, note = json_values.damage(rng, settings, outside=case.outside)
    path.write_bytes(json_values.encoded(rng, json_values.dumps(settings)))  # JSON is YAML
    return note


def enter_recipe(case: Case) -> str:
    return str(read_settings([f"--config={case.input / 'recipe.yaml'}", "--output=run"]))


SETTINGS = tuple(field.name for field in fields(Settings))
DOORS = [Door("recipe", prepare_recipe, damage_recipe, enter_recipe, places=SETTINGS)]
