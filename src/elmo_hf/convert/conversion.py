"""Published files of any family to a Transformers folder.

convert([Path("published-elmo")], Path("my-elmo"))
convert([Path("published-elmo")], Path("my-elmo"), dry_run=True)    # only what it would do
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from elmo_hf.convert import allennlp, bilm, manylangs, tensorflow
from elmo_hf.convert.files import VOCABULARY, Recognised, recognise
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.errors import ElmoError
from elmo_hf.files import new_folder

logger = logging.getLogger(__name__)

# Where a folder holds weights in several formats, the first is taken: a checkpoint holds more than its HDF5.
FAMILIES: tuple[Family, ...] = (
    tensorflow.FAMILY,
    allennlp.FAMILY,
    manylangs.FAMILY,
    bilm.FAMILY,
)


def convert(
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    dry_run: bool = False,
    families: Sequence[Family] = FAMILIES,
) -> Plan:
    """Convert a published ELMo to a Transformers folder, as `elmo-hf convert` does.

    >>> plan = convert("published-elmo", "my-elmo")
    >>> ElmoModel.from_pretrained("my-elmo").config.num_hidden_layers
    2

    Args:
        sources: A folder, or files, recognised by their content.
        target: The folder to write. It must not exist, or be empty.
        settings: Arguments of `ElmoConfig` that replace what the files say, or what is assumed where they say
            nothing, such as `{"cell_clip": None}`.
        name: Which model, if the files hold several; the error that asks for it lists them.
        dry_run: Check everything and write nothing.
        families: The formats that are tried.

    Returns:
        What was taken, assumed and left out.

    Raises:
        ElmoError: A file is missing, damaged, or does not fit the others. Nothing is written then.
    """
    sources = [sources] if isinstance(sources, (str, Path)) else sources
    paths, target = [Path(source) for source in sources], Path(target)
    choices = Choices(dict(settings or {}), name)
    with ExitStack() as open_files:
        if dry_run:
            return make_plan(paths, choices, families, open_files)
        folder = open_files.enter_context(new_folder(target))
        plan = make_plan(paths, choices, families, open_files)
        plan.write(folder, target.resolve().name)
        return plan


def convert_checkpoint(source: Path, vocabulary: Path, folder: Path) -> Plan:
    """Convert a TensorFlow checkpoint with the vocabulary of its softmax, whatever that file's name.

    Args:
        folder: an empty one, to write into.
    """
    files = recognise([source], tensorflow.ROLES, tensorflow.role_of)
    listed = [pair for pair in files.listed if pair[0] != VOCABULARY]
    files = replace(files, named=[*files.named, (VOCABULARY, vocabulary)], listed=listed)
    with ExitStack() as open_files:
        plan = tensorflow.plan(files, Choices(), open_files)
        plan.write(folder, source.resolve().name)
    return plan


def make_plan(
    sources: Sequence[Path], choices: Choices, families: Sequence[Family], open_files: ExitStack
) -> Plan:
    roles = {role: text for family in families for role, text in family.roles.items()}

    def role_of(path: Path) -> str | None:
        return next((role for family in families if (role := family.role_of(path)) is not None), None)

    files = recognise(sources, roles, role_of)
    family, *others = families_of(files, families)
    plan = family.plan(files, choices, open_files)
    for other in others:
        plan.left += [
            f"{path}, which is another format; name it to convert it" for path in other.main_files(files)
        ]
    for line in plan.lines():
        logger.info("%s", line)
    return plan


def families_of(files: Recognised, families: Sequence[Family]) -> list[Family]:
    """The families whose weights are among the files: one, unless a folder has several."""
    fitting = [family for family in families if family.main_files(files)]
    named = [family for family in fitting if any(map(files.has_named, family.mains))]
    if len(named) > 1:
        names = " and ".join(str(family.main_files(files)[0]) for family in named)
        raise ElmoError(f"{names} are weights of different formats; give the files of one.")
    if not fitting:
        raise files.missing(*(role for family in families for role in family.mains))
    return named or fitting
