"""Doors of a card: the facts and the results that it is made of."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from elmo_hf.hub.card import write_card
from tests.fuzz import folders, good, json_values, raw_bytes, yaml_values
from tests.fuzz.door import Case, Door, Fault
from tests.fuzz.json_values import Raw, every

# ---- facts

ATTACKS = ["<script>alert(1)</script>", "\n# MARK\n", "\n---\nlicense: evil\n---\n"]
ATTACKS += ["[a](javascript:alert(1))", "![x](http://e/x.png)"]
ATTACKS += ["TODO", "{{ 7 * 7 }}", "{% raw %}", "```\n# MARK\n```", "````", "| a | b |", "&lt;", "<!-- "]
ATTACKS += ["--> <b>", "\r# MARK", "\u2028# MARK"]


MARKDOWN = ("summary", "licence_note", "training_note", "usage", "reproduce")  # facts that may have headings


def damage_facts(case: Case) -> str:
    path, rng = case.input / "facts.yaml", case.rng
    choice = rng.random()
    if choice < 0.08:
        return folders.damage(rng, case.input, None, [path.name])
    if choice < 0.25:
        return raw_bytes.damage_file(rng, path)
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    facts |= {
        "kind": rng.choice(["base", "base", "converted"]),
        "source": copy.deepcopy(SOURCE),
        "commands": {"kneser_ney": "lm"},
    }
    facts |= {
        "usage": "x",
        "citation": "y",
        "tags": ["a"],
        "datasets": ["b"],
        "training_note": "z",
        "licence_name": "n",
    }
    if choice < 0.45:
        name, value = rng.choice(sorted(facts)), rng.choice(yaml_values.VALUES)
        text = yaml.safe_dump({key: below for key, below in facts.items() if key != name})
        lines = [text, f"{name}: {value}\n", f"x: {yaml_values.ALIASES}\n" if rng.random() < 0.2 else ""]
        rng.shuffle(lines)
        path.write_bytes("".join(lines).encode("utf-8", "surrogatepass"))
        return f"{name}: {value[:60]}"
    if choice < 0.7:
        return attack_facts(case, path, facts)
    changed, note = json_values.damage(rng, facts, outside=case.outside)
    path.write_bytes(json_values.encoded(rng, json_values.dumps(changed)))  # JSON is YAML
    return note


SOURCE = {"title": "x", "url": "https://x.org", "authors": ["A"], "licence": "mit"}


def attack_facts(case: Case, path: Path, facts: dict[str, Any]) -> str:
    """Text that ends what it stands in, in one of the facts."""
    places = [(owner, key) for owner, key in json_values.places_in(facts) if isinstance(owner[key], str)]
    owner, key = case.rng.choice(places)
    attack = case.rng.choice(ATTACKS)
    owner[key] = case.rng.choice([attack, owner[key] + attack, attack + owner[key]])
    path.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
    return f"{key} = {owner[key]!r}"


def enter_card(case: Case) -> str:
    """The card, of which nothing that stands in the input may be live."""
    text = write_card(case.input, output=case.output / "README.md").read_text(encoding="utf-8")
    metadata, body = text.split("\n---\n", 1)
    outside_of_code = re.sub(r"^(`{3,})[^\n]*\n.*?\n\1$", "", body, flags=re.M | re.S)
    outside_of_code = re.sub(r"(`+)[^`\n]+\1", "", outside_of_code)
    # Every value as a text: SafeLoader refuses a text such as 2026-99-99, of which it makes a date.
    facts = yaml.load((case.input / "facts.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
    has_headings = any("# MARK" in str(facts.get(name)) for name in MARKDOWN)
    is_heading = re.search(r"^# MARK", outside_of_code, re.M) and not has_headings
    if "<script" in outside_of_code or is_heading:
        raise Fault("wrong", "what stands in the input is live in the card")
    if "javascript:" in outside_of_code and re.search(r"(?<!\\)\]\(javascript:", outside_of_code):
        raise Fault("wrong", "an address of javascript is in the card")
    data = yaml.safe_load(metadata.removeprefix("---\n"))
    if "evil" in data or data.get("license") == "evil":
        raise Fault("wrong", "the input has added to the card's metadata")
    return text


# ---- results

RESULTS: list[tuple[str, Any]] = every("schema", 2, "1", None, [], True, 1.0, Raw("1e400"))
RESULTS += every(
    "results", [], {}, None, [1], [{}], [{"kind": "table", "rows": []}], [{"kind": ["table"], "rows": [{}]}]
)
RESULTS += [
    ("results", [{"kind": "table", "rows": [{attack: attack}], "title": attack, "note": attack}])
    for attack in ATTACKS
]
RESULTS += [
    ("results", [{"kind": "perplexity", "rows": [{"text": "a", "forward": big, "backward": 1, "mean": big}]}])
    for big in (1e308, 10**17, True)
]
RESULTS += every("command", *ATTACKS, 5, None, [], "x" * 10_000)
RESULTS += every("heldout", {}, [], 5, {"a": {}}, {"a": {"best": {}}}, {"a": 5})
RESULTS += every("machine", 5, {}, None, {"cpu": 5}, {"cpu": "<script>", "cores": 2, "gpu": ["x"]})
RESULTS += every(
    "model", {}, 5, {"config": {}}, {"config": {"lstm_dim": 2**40}, "parameters": 1, "softmax_parameters": 1}
)
RESULTS += every("files", {}, 5, {"../x": {"bytes": 1, "sha256": "x"}}, {"a": {"bytes": -1, "sha256": "`"}})
RESULTS += every("settings", {}, 5, {"rows": "<script>"}, {"data": [["x"]]}, {"rows": 1e308})
RESULTS += every("rows", {}, [], [5], [{}], [{"name": "x"}]) + every("order", "5") + every("minutes", "x")
RESULTS += every("probes", 5)


def damage_results(case: Case) -> str:
    folder, rng = case.input / "results", case.rng
    path = rng.choice(sorted(folder.glob("*.json")))
    choice = rng.random()
    if choice < 0.1:
        return folders.damage(rng, folder, None, [path.name])
    if choice < 0.15:
        path.rename(
            path.with_name(
                rng.choice(["a b", "<script>", "x" * 200, "-", "perplexity-", "evaluation-a|b", "log"])
                + ".json"
            )
        )
        return f"{path.name} has another name"
    facts = yaml.safe_load((case.input / "facts.yaml").read_text(encoding="utf-8"))
    kinds = {"kind": rng.choice(["base", "base", "converted"]), "source": SOURCE}
    (case.input / "facts.yaml").write_text(yaml.safe_dump(facts | kinds), encoding="utf-8")
    return json_values.damage_file(rng, path, RESULTS, case.outside)


DOORS = [
    Door("facts", good.write_card, damage_facts, enter_card),
    Door("results", good.write_card, damage_results, enter_card),
]
