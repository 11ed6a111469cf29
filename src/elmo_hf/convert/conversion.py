"""Published files of any family to a Transformers folder.

convert([Path("published-elmo")], Path("my-elmo"))
convert([Path("published-elmo")], Path("my-elmo"), dry_run=True)    # only what it would do
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from elmo_hf.convert import allennlp, bilm, manylangs
from elmo_hf.convert.files import Recognised, recognise
from elmo_hf.convert.plan import Choices, Family, Plan
from elmo_hf.errors import ElmoError
from elmo_hf.files import new_folder

logger = logging.getLogger(__name__)

FAMILIES: tuple[Family, ...] = (bilm.FAMILY, allennlp.FAMILY, manylangs.FAMILY)


def convert(
    sources: Sequence[str | Path],
    target: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    name: str | None = None,
    dry_run: bool = False,
    families: Sequence[Family] = FAMILIES,
) -> Plan:
    """Convert a published ELMo to a Transformers folder, as `elmo-hf convert` does.

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
    paths, target = [Path(source) for source in sources], Path(target)
    choices = Choices(dict(settings or {}), name)
    with ExitStack() as open_files:
        if dry_run:
            return make_plan(paths, choices, families, open_files)
        folder = open_files.enter_context(new_folder(target))
        plan = make_plan(paths, choices, families, open_files)
        plan.write(folder, target.resolve().name)
        return plan


def convert_from_bilm(sources: Sequence[Path], target: Path) -> Path:
    """Convert HDF5 weights (AllenNLP, bilm-tf), as `convert` does, and no other format.

    Returns:
        `target`, with an `ElmoForPreTraining` if a softmax is among the files, otherwise an `ElmoModel`.
    """
    convert(sources, target, families=[bilm.FAMILY])
    return Path(target)


def make_plan(
    sources: Sequence[Path], choices: Choices, families: Sequence[Family], open_files: ExitStack
) -> Plan:
    roles = {role: text for family in families for role, text in family.roles.items()}

    def role_of(path: Path) -> str | None:
        return next((role for family in families if (role := family.role_of(path)) is not None), None)

    files = recognise(sources, roles, role_of)
    plan = family_of(files, families).plan(files, choices, open_files)
    for line in plan.lines():
        logger.info("%s", line)
    return plan


def family_of(files: Recognised, families: Sequence[Family]) -> Family:
    """The family whose weights are among the files."""
    fitting = [family for family in families if family.main_file(files) is not None]
    if len(fitting) > 1:
        names = " and ".join(str(family.main_file(files)) for family in fitting)
        raise ElmoError(f"{names} are weights of different formats; give the files of one.")
    if not fitting:
        raise files.missing(*(role for family in families for role in family.mains))
    return fitting[0]
