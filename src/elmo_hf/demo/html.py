"""The demo's pieces of a page as HTML: the words to click, the table of nearest ones, the map as an SVG.

Pure functions from plain data to a string. Whatever comes from a text or a model is escaped.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from elmo_hf.demo.maths import fit, spread
from elmo_hf.demo.reading import Text

# Colours that also those see apart who see fewer: Okabe and Ito's, darker where white must be read on them.
COLOURS = ("#0072B2", "#C04A00", "#007A58", "#A8467F", "#6F5B00")
AROUND = 14  # words on each side of the one in question
WIDTH, HEIGHT, RADIUS = 340, 250, 11
FRAME = (18.0, 18.0, WIDTH - 18.0, HEIGHT - 18.0)  # of the circles' centres

STYLE = """
.elmo p, .elmo table { font-size: 15px; line-height: 1.55; margin: 0 0 6px; }
.elmo button { font: inherit; color: inherit; background: none; border: 0; padding: 0 1px; border-radius: 4px;
  cursor: pointer; }
.elmo button:hover, .elmo button:focus-visible { outline: 2px solid #0072B2; }
.elmo mark { color: #111; background: #FFD96B; border-radius: 4px; padding: 0 3px; }
.elmo button.same { color: #111; background: #FFE9AE; }
.elmo button.picked { color: #111; background: #FFC21A; font-weight: 600; }
.elmo .number { display: inline-block; min-width: 22px; padding: 0 4px; border-radius: 11px;
  text-align: center; font-size: 12px; line-height: 22px; font-weight: 600; color: #fff; background: #555; }
.elmo .sentence { display: flex; gap: 8px; align-items: baseline; font-size: 15px; line-height: 1.6; }
.elmo .sentence > span:last-child { min-width: 0; overflow-wrap: anywhere; }
.elmo table { border-collapse: collapse; width: 100%; }
.elmo table, .elmo thead, .elmo tbody, .elmo tr { border: 0 !important; }
.elmo th { text-align: left; font-weight: 600; font-size: 13px; opacity: .8; }
.elmo th, .elmo td { padding: 4px 8px 4px 0; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .35);
  vertical-align: baseline; }
.elmo td:last-child { overflow-wrap: anywhere; width: 100%; padding-right: 0; }
.elmo td.cosine { font-variant-numeric: tabular-nums; }
.elmo svg { display: block; width: 100%; max-width: 540px; height: auto; margin: 0 auto; }
.elmo p.caption { text-align: center; font-size: 14px; margin-top: 8px; }
#word input, #occurrence input { padding-right: 28px; text-overflow: ellipsis; }
"""


def labels_of(text: Text, occurrences: Sequence[int]) -> dict[int, str]:
    """How an occurrence is called: by its sentence, `3`, or `3.1`, `3.2` if there are several in it."""
    sentences = [text.words[number].sentence for number in occurrences]
    found: dict[int, str] = {}
    for place, (number, sentence) in enumerate(zip(occurrences, sentences, strict=True)):
        several = f".{sentences[: place + 1].count(sentence)}" if sentences.count(sentence) > 1 else ""
        found[number] = f"{sentence + 1}{several}"
    return found


def words_html(text: Text, key: str, picked: int | None) -> str:
    """All sentences; each word can be clicked, those with `key` are marked, the picked one most."""
    lines = []
    number = 0
    for place, sentence in enumerate(text.sentences):
        shown = []
        for form in sentence:
            word = text.words[number]
            kind = "picked" if number == picked else "same" if word.key == key else "other"
            shown.append(
                f'<button type="button" class="{kind}" data-word="{number}">{escape(form)}</button>'
                if word.is_word
                else escape(form)
            )
            number += 1
        lines.append(
            f'<div class="sentence"><span class="number">{place + 1}</span>'
            f"<span>{' '.join(shown)}</span></div>"
        )
    return _box("\n".join(lines))


def table_html(
    text: Text, rows: Sequence[tuple[int, float]], labels: dict[int, str], groups: dict[int, int]
) -> str:
    """A row for each word: where it is, in its group's colour, its cosine, its sentence."""
    shown = []
    for number, cosine in rows:
        name = labels.get(number, str(text.words[number].sentence + 1))
        shown.append(
            f'<tr data-word="{number}"><td>{_badge(name, groups.get(number))}</td>'
            f'<td class="cosine">{cosine:.3f}</td><td>{in_context(text, number)}</td></tr>'
        )
    head = '<tr><th scope="col">in</th><th scope="col">cosine</th><th scope="col">sentence</th></tr>'
    return _box(f"<table><thead>{head}</thead><tbody>{''.join(shown)}</tbody></table>")


def in_context(text: Text, number: int) -> str:
    """Its sentence, or what of a long one is around it, with the word marked."""
    word = text.words[number]
    words = text.sentences[word.sentence]
    start, end = max(0, word.place - AROUND), min(len(words), word.place + AROUND + 1)
    before, after = words[start : word.place], words[word.place + 1 : end]
    parts = [
        "…" if start else "",
        escape(" ".join(before)),
        f"<mark>{escape(word.form)}</mark>",
        escape(" ".join(after)),
        "…" if end < len(words) else "",
    ]
    return " ".join(part for part in parts if part)


def map_html(
    text: Text,
    occurrences: Sequence[int],
    points: np.ndarray,
    shares: np.ndarray,
    groups: Sequence[int],
    picked: int | None,
) -> str:
    """A numbered circle for each occurrence; one that had to make room has a line to its point (words, 2)."""
    labels = labels_of(text, occurrences)
    true = fit(points, FRAME)
    places = spread(true, RADIUS + 1, FRAME)
    lines, circles = [], []
    for number, (x, y), (at_x, at_y), group in zip(occurrences, true, places, groups, strict=True):
        colour = COLOURS[group % len(COLOURS)]
        if np.hypot(x - at_x, y - at_y) > RADIUS / 2:
            lines.append(f'<path d="M{x:.1f} {y:.1f}L{at_x:.1f} {at_y:.1f}" stroke="{colour}"/>')
        title = escape(" ".join(text.sentences[text.words[number].sentence])[:200])
        ring = ' stroke="#FFC21A" stroke-width="4"' if number == picked else ""
        circles.append(
            f'<g data-word="{number}"><title>{title}</title>'
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{RADIUS}" fill="{colour}"{ring}/>'
            f'<text x="{at_x:.1f}" y="{at_y + 4:.1f}" fill="#fff" font-size="{_size(labels[number])}" '
            f'font-weight="600" text-anchor="middle">{labels[number]}</text></g>'
        )
    percent = " and ".join(f"{share:.0%}" for share in shares)
    word = escape(text.words[occurrences[0]].form)
    return _box(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of the occurrences of {word}">'
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="6" fill="none" stroke="#888" '
        f'stroke-opacity=".5"/>{"".join(lines)}{"".join(circles)}</svg>'
        '<p class="caption">Numbers are sentences, colours are groups. '
        f"Across and up: {percent} of how the vectors differ.</p>"
    )


def _size(label: str) -> int:
    return 12 if len(label) < 3 else 10 if len(label) == 3 else 8


def _badge(name: str, group: int | None) -> str:
    colour = "#555555" if group is None else COLOURS[group % len(COLOURS)]
    return f'<span class="number" style="background: {colour}">{escape(name)}</span>'


def message_html(message: str) -> str:
    return _box(f"<p>{escape(message)}</p>")


def _box(inside: str) -> str:
    return f'<div class="elmo">{inside}</div>'
