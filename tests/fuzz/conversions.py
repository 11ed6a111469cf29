"""Doors of published files that are converted, and of vocabularies."""

from pathlib import Path
from typing import Any

from elmo_hf.convert import convert, convert_from_bilm
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import start_model
from tests.fuzz import folders, good, hdf5_files, json_values, models, packed, raw_bytes, tensor_bundle_files
from tests.fuzz.door import Case, Door
from tests.fuzz.json_values import every

# ---- the vocabulary, of a folder, of a conversion, of a run


def prepare_vocabulary(folder: Path) -> None:
    good.save_model(folder / "model")
    good.write_bilm(folder)
    good.write_words(folder / "vocab.txt")


def damage_vocabulary(case: Case) -> str:
    places = ["model/vocab.txt", "characters/vocab.txt", "words/vocab.txt", "vocab.txt", "vocab.counts.tsv"]
    place, rng = places[case.number % len(places)], case.rng
    path = case.input / place
    choice = rng.random()
    if choice < 0.1:
        return f"{place} {folders.damage(rng, path.parent, None, [path.name])}"
    if choice < 0.5:
        data, note = packed.damage_text(rng, path.read_bytes())
        path.write_bytes(data)
        return f"{place} {note}"
    if choice < 0.6:
        lines = path.read_bytes().split(b"\n")
        end = rng.choice([10, 100_000, 1_000_000])
        path.write_bytes(b"\n".join([*lines[:-1], *(b"%d" % number for number in range(end))]))
        return f"{place} {end} words more"
    return f"{place} {raw_bytes.damage_file(rng, path)}"


def enter_vocabulary(case: Case) -> object:
    place = case.number % 5
    if place == 0:
        return models.enter_folder(case, case.input / "model")
    if place < 3:
        return convert_from_bilm([case.input / ["characters", "words"][place - 1]], case.output / "elmo")
    return "\n".join(Vocabulary.load(case.input / "vocab.txt").words)


# ---- conversion


def folder_of(case: Case) -> Path:
    return case.input / ["characters", "words"][case.number % 3 == 0]


def damage_hdf5(case: Case) -> str:
    path = folder_of(case) / case.rng.choice(["weights.hdf5", "weights.hdf5", "softmax.hdf5"])
    if case.rng.random() < 0.05:
        return folders.damage(case.rng, path.parent, None, [path.name])
    return hdf5_files.damage(case.rng, path, case.outside)


OPTIONS: list[tuple[str, Any]] = every("lstm", {}, 5, [], None, "x", {"dim": 5})
OPTIONS += every("char_cnn", {}, 5, [], None, "x", {"filters": [[1, 2]]})
OPTIONS += every("bidirectional", False, 1, "x", None)


def damage_options(case: Case) -> str:
    path = folder_of(case) / "options.json"
    if case.rng.random() < 0.08:
        return folders.damage(case.rng, path.parent, None, [path.name])
    return json_values.damage_file(case.rng, path, OPTIONS, case.outside)


def enter_conversion(case: Case) -> object:
    """Named one by one, as a folder's files may be left out when they are not what is needed."""
    folder = folder_of(case)
    is_named = case.number % 2
    return convert_from_bilm(sorted(folder.iterdir()) if is_named else [folder], case.output / "elmo")


# ---- TensorFlow's checkpoints and modules


def damage_checkpoint(case: Case) -> str:
    folder, rng = case.input / "training", case.rng
    choice = rng.random()
    if choice < 0.05:
        return folders.damage(rng, folder, None)
    if choice < 0.1:
        return tensor_bundle_files.damage_newest(rng, folder / "checkpoint", case.outside)
    if choice < 0.15:
        return json_values.damage_file(rng, folder / "options.json", OPTIONS, case.outside)
    return tensor_bundle_files.damage(rng, folder / "model.ckpt-7.index")


def enter_checkpoint(case: Case) -> object:
    """The folder, or the checkpoint alone, or the start of a run."""
    folder = case.input / "training"
    if case.number % 4 == 3:
        settings = Settings(start=str(folder), vocab=str(folder / "vocab.txt"))
        return str(start_model(settings, None).notes)
    sources = [folder] if case.number % 4 else [folder / "model.ckpt-7.index", folder / "vocab.txt"]
    return str(convert(sources, case.output / "elmo").left)


def damage_module(case: Case) -> str:
    if case.number % 3 == 0:
        path = case.input / "annotator" / "elmo_tensorflow"
        if case.rng.random() < 0.05:
            return folders.damage(case.rng, path.parent, None)
        return tensor_bundle_files.damage_zip(case.rng, path, case.outside)
    if case.rng.random() < 0.05:
        return folders.damage(case.rng, case.input / "module", None)
    return tensor_bundle_files.damage(case.rng, case.input / "module" / "variables" / "variables.index")


def enter_module(case: Case) -> object:
    folder = case.input / ("annotator" if case.number % 3 == 0 else "module")
    return str(convert([folder], case.output / "elmo").left)


DOORS = [
    Door("tensorflow", good.write_training, damage_checkpoint, enter_checkpoint),
    Door("savedmodel", good.write_modules, damage_module, enter_module),
    Door("hdf5", good.write_bilm, damage_hdf5, enter_conversion),
    Door("options", good.write_bilm, damage_options, enter_conversion),
    Door("vocabulary", prepare_vocabulary, damage_vocabulary, enter_vocabulary),
]
