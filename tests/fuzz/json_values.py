"""Damage to the structure of JSON and YAML: types, sizes, depth, numbers that are none, keys."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import raw_bytes


class Raw(str):
    """Text that goes into the file as it is."""


class Twice(dict):
    """An object whose last key is written twice."""


Place = tuple[Any, Any]  # a list or dictionary, and the index or key in it

NUMBERS: list[Any] = [0, 1, -1, 2, 3, 0.5, -0.0, 2**24, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64]
NUMBERS += [10**30]
NUMBERS += [1e-300, 1e308, Raw("1e999"), Raw("-1e999"), Raw("NaN"), Raw("Infinity"), Raw("-Infinity")]
NUMBERS += [Raw("1" + "0" * 400), Raw("9" * 5000), Raw("0x10"), Raw("01"), Raw("1_000"), Raw("-")]
TEXTS: list[Any] = ["", " ", "x", "\0", "a\nb", "\u2028", "\x85", "ä" * 40, "日本語", "x" * 100_000]
TEXTS += ["\U0001f600"]
TEXTS += ["None", "NaN", "1", "true", "../x", "..", ".", "/", "/etc/passwd", "/dev/zero", "~", "C:\\x", "a/b"]
TEXTS += ["a\\b"]
TEXTS += ["%s%n", "{0}", "{{ config }}", "${HOME}", "<script>alert(1)</script>", "](x)", "`", "|"]
TEXTS += ["---\nevil: 1\n---"]
TEXTS += ["\n# MARK\n", "'; touch CANARY #", "$(touch CANARY)", "__class__", "torch.float16", "float16"]
TEXTS += ["evil.Evil"]
TEXTS += [Raw('"\\ud800"'), Raw('"\\udc00\\ud800"'), Raw('"\\u0000"'), Raw('"\n"'), Raw('"\\x"'), Raw("'a'")]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": [1]}}]
OTHERS += [[1, "a", None]]
DEPTHS = [50, 900, 5_000, 100_000]


def values(rng: Random, outside: Path | None = None) -> Any:
    """A value that is unlikely to be right."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind < 7:
        paths = [str(path) for path in sorted(outside.iterdir())] if outside else []
        return rng.choice([*TEXTS, *paths, *(f"../../outside/{Path(path).name}" for path in paths)])
    if kind < 9:
        return copy.deepcopy(rng.choice(OTHERS))
    depth = rng.choice(DEPTHS)
    return rng.choice(
        [Raw("[" * depth), Raw("[" * depth + "]" * depth), Raw('{"a":' * depth + "1" + "}" * depth)]
    )


def every(name: str, *values: Any) -> list[tuple[str, Any]]:
    """A key with each of these values, for `extra` below."""
    return [(name, value) for value in values]


def damage_file(
    rng: Random, path: Path, extra: Iterable[tuple[str, Any]] = (), outside: Path | None = None
) -> str:
    """Damage a JSON file. extra: keys and values that a file of this kind could have at its top."""
    if rng.random() < 0.12:
        return raw_bytes.damage_file(rng, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content, description = damage(rng, content, extra, outside)
    path.write_bytes(encoded(rng, dumps(content)))
    return f"{path.name}, {description}"


def damage(
    rng: Random, content: Any, extra: Iterable[tuple[str, Any]] = (), outside: Path | None = None
) -> tuple[Any, str]:
    """One to three changes, and what they were."""
    extra, notes = list(extra), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if extra and isinstance(content, dict) and rng.random() < 0.35:
            name, value = rng.choice(extra)
            content[name] = copy.deepcopy(value)
            notes.append(f"{name} = {shown(content[name])}")
            continue
        places = list(places_in(content))
        if not places or rng.random() < 0.02:
            content = values(rng, outside)
            notes.append(f"all = {shown(content)}")
            continue
        owner, key = rng.choice(places)
        change = rng.choice(CHANGES)
        change(rng, owner, key, outside)
        is_there = key in owner if isinstance(owner, dict) else key < len(owner)
        now = owner[key] if is_there else ""
        notes.append(f"{change.__name__} {str(key)[:40]} {shown(now)}")
    return content, "; ".join(notes)


def shown(value: Any) -> str:
    return dumps(value)[:60] if not isinstance(value, Raw) else str(value)[:60]


def places_in(content: Any, most: int = 2000) -> Iterator[Place]:
    waiting = [content]
    while waiting and most > 0:
        value = waiting.pop()
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, below in list(items)[:50]:
            most -= 1
            yield value, key
            waiting.append(below)


# ---- changes of owner[key]


def set_value(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    owner[key] = values(rng, outside)


def scale(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    """A number that is wrong, and still a number of its kind."""
    value = owner[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        owner[key] = rng.choice([not value, str(value), [value], None])
    else:
        owner[key] = rng.choice(
            [value + 1, value - 1, -value, value * 2, value * 1000, value * 2**20, float(value)]
        )


def same_type(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    value = owner[key]
    if isinstance(value, str):
        owner[key] = rng.choice([*TEXTS, value + " ", value.upper(), value[:-1], value * 1000])
    elif isinstance(value, list):
        owner[key] = rng.choice([value[1:], value * 2, value * 5000, value[::-1], [value], value[:1]])
    elif isinstance(value, dict):
        owner[key] = rng.choice([{}, {str(name) + "x": below for name, below in value.items()}, [value]])
    else:
        owner[key] = rng.choice(NUMBERS)


def delete(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    del owner[key]


def rename(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    if isinstance(owner, dict):
        new = rng.choice([text for text in TEXTS if not isinstance(text, Raw)])
        owner[new] = owner.pop(key)


def move(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    """Two values change places."""
    other = rng.choice(list(owner) if isinstance(owner, dict) else range(len(owner)))
    owner[key], owner[other] = owner[other], owner[key]


def write_twice(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    if isinstance(owner[key], dict) and owner[key]:
        owner[key] = Twice(owner[key])
    elif isinstance(owner, dict):
        owner["metadata"] = Twice({key: owner[key]})


def nest(rng: Random, owner: Any, key: Any, outside: Path | None) -> None:
    owner[key] = rng.choice(
        [[owner[key]], {"a": owner[key]}, {key: owner[key]} if isinstance(key, str) else [[owner[key]]]]
    )


Change = Callable[[Random, Any, Any, Path | None], None]
CHANGES: list[Change] = [set_value, set_value, set_value, scale, scale, same_type, same_type]
CHANGES += [delete, rename, move, write_twice, nest]


# ---- writing


def dumps(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        entries = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {dumps(below)}" for key, below in value.items()
        ]
        return "{" + ", ".join(entries + (entries[-1:] if isinstance(value, Twice) else [])) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def encoded(rng: Random, text: str) -> bytes:
    choice = rng.random()
    if choice < 0.94:
        return text.encode("utf-8", "surrogatepass")
    text = text.encode("utf-8", "replace").decode("utf-8")
    if choice < 0.96:
        return (text + rng.choice(["}", "\0", " x", "\n{}", "//", ","])).encode()
    return rng.choice(
        [text.encode("utf-8-sig"), text.encode("utf-16"), text.encode("utf-32"), text.encode()[:-1]]
    )
