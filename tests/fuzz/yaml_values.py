"""What YAML has beyond JSON: tags, aliases, numbers and dates of all kinds, layout."""

ALIASES = "&a [l, l, l, l, l, l, l, l]"
VALUES = ["!!python/object/apply:os.system ['touch CANARY']", "!!python/name:os.system", "!!python/module:os"]
VALUES += ["&a [*a]", "*a"]
VALUES += ["!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2026-01-01", "2026-99-99"]
VALUES += ["2026-01-01", "1:59:59"]
VALUES += [
    "1:" + "59:" * 5000 + "1",
    "0x" + "f" * 5000,
    "0b" + "1" * 5000,
    ".nan",
    ".inf",
    "-.inf",
    "~",
    "yes",
]
VALUES += ["No", "0o17", "1_000"]
VALUES += ["{<<: *a}", "{<<: [1]}", "? x", "- -", "@x", "`x`", "%x", "[", "{", "'", '"', "|", ">"]
VALUES += ["|+\n  a\n\n", "\t", "a: b: c", "!x y"]
VALUES += [
    "[" * 5000,
    "{a: " * 3000,
    "- " * 3000,
    '"\\ud800"',
    '"\\x00"',
    "\ufeff",
    "---\na: 1",
    "...",
    "# x",
]
VALUES += ["!!float x", "!!int x"]
