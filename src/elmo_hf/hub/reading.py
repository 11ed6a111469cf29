"""What somebody else wrote, read with limits: files, YAML, JSON, and the form of their values.

content = read_json(path)          # of a plain file that is small, flat and clear; or an ElmoError
check("run.json", content, {"hours": a_number, "gpu?": a_text, "": anything})
"""

import json
import os
import re
import reprlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from elmo_hf import files
from elmo_hf.errors import ElmoError

# Of a file, of one text in it, of a number, of lists and objects in each other, of values in all.
MAX_BYTES, MAX_TEXT, MAX_DIGITS, MAX_DEPTH, MAX_VALUES = 1_000_000, 20_000, 40, 16, 100_000
MAX_YAML = 100_000  # bytes, of which the library reads few in a second


# ---- files


def plain_file(path: Path) -> os.stat_result:
    """Refuse what is no file of its folder: links, which lead elsewhere, pipes, devices, folders."""
    try:
        status = path.lstat()
    except (OSError, ValueError):
        raise ElmoError(f"there is no file {path}.") from None
    if stat.S_ISLNK(status.st_mode):
        raise ElmoError(f"{path} is a link, whose target may be outside of the folder; copy the file there.")
    if not stat.S_ISREG(status.st_mode):
        raise ElmoError(f"{path} is not a file.")
    return status


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    plain_file(path)
    return files.read_bytes(path, limit, follow_links=False)  # nor what has replaced it in the meantime


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    try:
        return read_bytes(path, limit).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ElmoError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start}).") from None


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    text = read_text(path, limit)
    try:
        content = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ElmoError(f"{path} is not JSON ({error}); run the command that writes it again.") from None
    check_size(str(path), content)
    return content


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text[:MAX_DIGITS]}... has more than {MAX_DIGITS} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return content


class _Loader(yaml.SafeLoader):
    """YAML without what only surprises: aliases, tags, dates, names that are there twice, endless numbers."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise ElmoError(f"has an anchor or alias, {brief(event.anchor)}; write the value out")
        if getattr(event, "tag", None) is not None:
            raise ElmoError(f"has a tag, {brief(event.tag)}; leave it out")
        node: Any = super().compose_node(parent, index)
        is_text = node.tag.endswith((":str", ":map", ":seq"))
        if not is_text and len(node.value) > MAX_DIGITS + 8:
            raise ElmoError(f"has {brief(node.value)}, which is no text; put it in quotes")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        content = super().construct_mapping(node, deep)
        if len(content) < len(node.value):
            raise ElmoError(f"names a value twice in line {node.start_mark.line + 1}")
        return content


_Loader.yaml_implicit_resolvers = {
    letter: [entry for entry in entries if not entry[0].endswith((":timestamp", ":merge", ":value"))]
    for letter, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(place: str, text: str) -> Any:
    if len(text) > MAX_YAML:
        raise ElmoError(f"{place} has more than {MAX_YAML:,} letters, too many for this file.")
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    except ElmoError as error:
        raise ElmoError(f"{place} {error}.") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ElmoError(f"{place} is no YAML: {reason[:300].rstrip('.')}.") from None
    check_size(place, content)
    return content


# ---- values


def check_size(place: str, content: Any) -> None:
    """Refuse what nests deeply, is much, has a long text or a number beyond all measure."""
    level, count = [content], 0
    for _ in range(MAX_DEPTH):
        for value in level:
            if isinstance(value, str) and len(value) > MAX_TEXT:
                raise ElmoError(f"{place} has a text of more than {MAX_TEXT:,} letters, {brief(value)}.")
            if not isinstance(value, str | bool | list | dict | None) and not is_number(value):
                raise ElmoError(
                    f"{place} has {brief(value)}, which is no number or text that this file may have."
                )
        count += len(level)
        level = [child for value in level if isinstance(value, list | dict) for child in _children(value)]
        if not level and count <= MAX_VALUES:
            return
    raise ElmoError(
        f"{place} has more than {MAX_VALUES:,} values, or nests them in more than {MAX_DEPTH} levels."
    )


def _children(value: Any) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else value


def brief(value: Any) -> str:
    """What an error message shows of a value."""
    try:
        return reprlib.repr(value)
    except ValueError:  # thousands of digits
        return f"{type(value).__name__} too long to show"


def check(place: str, value: Any, form: Any) -> Any:
    """The value in its form, which is

    - a function that returns the value, or raises an ElmoError such as "must be a number",
    - [form] for a list of these that is not empty, or
    - {name: form} for an object: "name?" may be missing, and "" is any other name, refused without it.
    """
    if isinstance(form, list):
        if not isinstance(value, list) or not value:
            raise ElmoError(f"{place} must be a list, but is {brief(value)}.")
        return [check(f"{place}, entry {count}", entry, form[0]) for count, entry in enumerate(value, 1)]
    if isinstance(form, dict):
        return _check_object(place, value, form)
    try:
        return form(value)
    except ElmoError as error:
        raise ElmoError(f"{place} {error}, but is {brief(value)}.") from None


def _check_object(place: str, value: Any, form: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ElmoError(f"{place} must hold names with values, but is {brief(value)}.")
    forms = {name.rstrip("?"): entry for name, entry in form.items() if name}
    given = {name: entry for name, entry in value.items() if entry is not None or name not in forms}
    missing = [repr(name) for name in form if name and not name.endswith("?") and name not in given]
    if missing:
        raise ElmoError(f"{place} lacks {', '.join(missing)}.")
    for name in given:
        if name not in forms and "" not in form:
            raise ElmoError(f"{place} has {brief(name)}, but a card knows only {', '.join(forms)}.")
    return {
        name: check(f"{place}: {brief(name)}", entry, forms[name] if name in forms else form[""])
        for name, entry in given.items()
    }


# ---- forms


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_cell(value: Any) -> bool:
    if isinstance(value, list):
        return all(not isinstance(entry, list) and is_cell(entry) for entry in value)
    return value is None or isinstance(value, str | bool) or is_number(value)


def _form(description: str, is_right: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def form(value: Any) -> Any:
        if not is_right(value):
            raise ElmoError(f"must be {description}")
        return value

    return form


a_text = _form("a text", is_text)
a_number = _form("a number", is_number)
a_positive_number = _form("a positive number", lambda value: is_number(value) and value > 0)
a_cell = _form("a number, a text or a list of these", is_cell)
an_object = _form("an object", lambda value: isinstance(value, dict))
true_or_false = _form("true or false", lambda value: isinstance(value, bool))
a_checksum = _form("a SHA-256", lambda value: is_text(value) and bool(re.fullmatch("[0-9a-f]{64}", value)))
anything = _form("anything", lambda _: True)
