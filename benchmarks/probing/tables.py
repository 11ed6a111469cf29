"""What the probes' tables have in common."""

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are text, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "".join("\\" + sign if sign in "\\`*_|<>[]#~" else sign for sign in text)
