"""Values as Markdown that cannot end what it stands in: a table's cell, a line, a block of code.

    escape("a | b <i>")      # plain text as one line
    inline("see `x` <i>")    # a line of Markdown without HTML
    table([{"text": "news", "mean": 71.2}])

Facts and results come from files that others may have written, so a card shows none of them as it is.
"""

import math
import re
from typing import Any

from elmo_hf.errors import ElmoError, visible
from elmo_hf.hub.reading import is_number

MISSING = "–"
HEADINGS = {"words_per_second": "words/s", "words_per_sec": "words/s", "dataset": "data"}


# ---- text


def line(text: str) -> str:
    """Plain text without line breaks, for metadata and code."""
    return visible(" ".join(text.split()))


def verbatim(text: str) -> str:
    """Text of several lines, for blocks of code."""
    return visible(text.strip().replace("\r\n", "\n"))


BLOCK = re.compile(
    r"^(?=#{1,6}(?: |$)|>|[-+*](?: |$)|~~~"  # headings, quotations, lists, code
    r"|([-*_])(?: ?\1){2,}$|[-=]+$)"  # rules; lines below a heading
    r"|^(?P<number>\d{1,9})(?=[.)](?: |$))"  # numbered lists
)


def escape(text: str) -> str:
    """Plain text as one line of Markdown: no cell, link, code, HTML or block begins or ends in it."""
    escaped = re.sub(r"([\\`\[\]|])", r"\\\1", line(text).replace("<", "&lt;"))
    return BLOCK.sub(r"\g<number>\\", escaped)


INLINE = re.compile(
    r"\\.|<https?://[^\s<>]+>"  # an escaped character; an address
    r"|(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|(?P<unclosed>`+)|<"  # code; backticks without a partner; HTML
    r"|\](?=\(\s*(?!https?://|mailto:|#|[\w./-]+\))|\s*:)"  # other links; their definitions
)


def inline(text: str) -> str:
    """One line of Markdown: HTML outside of code is shown as text, and no code is left open."""

    def replace(match: re.Match[str]) -> str:
        if match["unclosed"]:
            return match["unclosed"].replace("`", "\\`")
        return {"<": "&lt;", "]": "\\]"}.get(match[0], match[0])

    return INLINE.sub(replace, line(text))


def blocks(text: str) -> str:
    """Lines of Markdown, as `inline`; blocks of code begin at the start of a line, and all are closed."""
    lines, fence = [], ""
    for row in verbatim(text).splitlines():
        opening = re.match(r"(`{3,})[^`]*$|(~{3,})", row)
        if fence:
            fence = "" if re.fullmatch(rf" {{0,3}}{fence}{fence[0]}*\s*", row) else fence
        elif opening:
            fence = opening[1] or opening[2]
        else:
            row = row[: len(row) - len(row.lstrip())] + inline(row)
            # What would end a block of metadata, or begin code that none of the following lines ends.
            row = re.sub(r"^(\s*)(---+\s*$|~~~)", r"\1\\\2", row)
        lines.append(row)
    return "\n".join([*lines, fence]).rstrip("\n")


def fenced(language: str, text: str) -> str:
    """A block of code that the text cannot end."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{verbatim(text)}\n{fence}" if text else ""


def code(text: str) -> str:
    """Code within a line."""
    fence = "`" * max([1, *(len(run) + 1 for run in re.findall("`+", text))])
    text = line(text) or MISSING
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def link(url: str) -> str:
    """The target of a link."""
    if not re.fullmatch(r"https?://[^\s<>\"`\\]+", url.strip()) or not url.strip().isprintable():
        raise ElmoError("must be an address that begins with https:// or http://")
    return url.strip().replace("(", "%28").replace(")", "%29")


# ---- numbers and tables


def number(value: float) -> str:
    """Whole numbers in full, others with four digits."""
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 3 - math.floor(math.log10(abs(value))) if abs(value) >= 1 else 4
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"


def cell(value: Any, name: str = "") -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " / ".join(cell(entry) for entry in value)
    if is_number(value):
        return f"{value:.2%}" if name == "unknown" else number(value)
    return escape(value.replace("_", " ") if name == "metric" else str(value))


def table(rows: list[dict[str, Any]], columns: list[str] | None = None) -> str:
    """Rows by column; all columns of all rows by default."""
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    headings = [escape(HEADINGS.get(name, name.replace("_", " "))) for name in columns]
    return markdown_table(headings, [[cell(row.get(name), name) for name in columns] for row in rows])


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Cells that are Markdown; columns of numbers are aligned right, but for the first."""
    columns = list(zip(*rows, strict=True))
    rule = ["---", *("---:" if all(map(_is_numeric, column)) else "---" for column in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *rows])


def _is_numeric(text: str) -> bool:
    return re.fullmatch(rf"[-\d.,%e+ /\\]+|{MISSING}", text) is not None  # "-" is escaped as "\\-"
