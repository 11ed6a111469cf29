"""The parts of the demo's page as HTML: the words to click, the table of nearest words, the map as an SVG.

Functions from plain data to a string. Everything that comes from a text or a model is escaped.
"""

import unicodedata
from collections.abc import Sequence
from html import escape
from itertools import islice

import numpy as np

from elmo_hf.demo.maths import fit, separate
from elmo_hf.demo.reading import Text

# Okabe and Ito's colours, which the colour-blind can tell apart; darker where white text stands on them.
COLOURS = ("#0072B2", "#C04A00", "#007A58", "#A8467F", "#6F5B00")
GREY = "#555555"
CONTEXT = 14  # words of a long sentence that are shown on each side of the word
WIDTH, HEIGHT, RADIUS = 340, 250, 11
FRAME = (18.0, 18.0, WIDTH - 18.0, HEIGHT - 18.0)  # of the circles' centres

STYLE = """
.elmo p, .elmo table { font-size: 15px; line-height: 1.55; margin: 0 0 6px; }
.elmo .word { padding: 0 1px; border-radius: 4px; cursor: pointer; }
.elmo .word:hover, .elmo .word:focus-visible { outline: 2px solid #0072B2; }
.elmo mark { color: #111; background: #FFD96B; border-radius: 4px; padding: 0 3px; }
.elmo .word.same { color: #111; background: #FFE9AE; }
.elmo .word.picked { color: #111; background: #FFC21A; font-weight: 600; }
.elmo .number { display: inline-block; min-width: 22px; padding: 0 4px; border-radius: 11px;
  text-align: center; font-size: 12px; line-height: 22px; font-weight: 600; color: #fff; background: #555; }
.elmo .sentence { display: flex; gap: 8px; align-items: baseline; font-size: 15px; line-height: 1.6; }
.elmo .sentence > span:last-child { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.elmo .number { flex: none; }
.elmo table { border-collapse: collapse; width: 100%; }
.elmo table, .elmo thead, .elmo tbody, .elmo tr { border: 0 !important; }
.elmo th { text-align: left; font-weight: 600; font-size: 13px; opacity: .8; }
.elmo th, .elmo td { padding: 4px 8px 4px 0; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .35);
  vertical-align: baseline; }
.elmo td:last-child { overflow-wrap: anywhere; width: 100%; padding-right: 0; text-align: start !important; }
.elmo td.cosine { font-variant-numeric: tabular-nums; }
.elmo svg { display: block; width: 100%; max-width: 540px; height: auto; margin: 0 auto; }
.elmo p.caption { text-align: center; font-size: 14px; margin-top: 8px; }
#text textarea, #tags .textfield { unicode-bidi: plaintext; text-align: start; }
#word input, #occurrence input { padding-right: 28px; text-overflow: ellipsis; }
"""


def labels_of(text: Text, occurrences: Sequence[int]) -> dict[int, str]:
    """An occurrence's label is its sentence: `3`, or `3.1`, `3.2` if there are several in it."""
    sentences = [text.words[number].sentence for number in occurrences]
    labels: dict[int, str] = {}
    for index, (number, sentence) in enumerate(zip(occurrences, sentences, strict=True)):
        suffix = f".{sentences[: index + 1].count(sentence)}" if sentences.count(sentence) > 1 else ""
        labels[number] = f"{sentence + 1}{suffix}"
    return labels


def words_html(text: Text, key: str, picked: int | None) -> str:
    """All sentences. Words are buttons, those with `key` are marked, the picked one most.

    The buttons are inline elements, so that words of two directions in a line stand in their order.
    """
    lines = []
    words = iter(enumerate(text.words))
    for index, sentence in enumerate(text.sentences):
        forms = []
        for number, word in islice(words, len(sentence)):
            form = escape(word.form)
            css = "picked" if number == picked else "same" if word.key == key else "other"
            button = (
                f'<span role="button" tabindex="0" aria-pressed="{str(number == picked).lower()}" '
                f'class="word {css}" data-word="{number}">{form}</span>'
            )
            forms.append(button if word.is_word else form)
        lines.append(
            f'<div class="sentence" dir="auto"><span class="number">{index + 1}</span>'
            f"<span>{' '.join(forms)}</span></div>"
        )
    return _box("\n".join(lines))


def table_html(
    text: Text, rows: Sequence[tuple[int, float]], labels: dict[int, str], groups: dict[int, int]
) -> str:
    """A row for each word: its sentence's number in its group's colour, its cosine, its sentence."""
    cells = []
    for number, cosine in rows:
        label = labels.get(number, str(text.words[number].sentence + 1))
        cells.append(
            f'<tr data-word="{number}"><td>{_badge(label, groups.get(number))}</td>'
            f'<td class="cosine">{cosine:.3f}</td><td dir="auto">{in_context(text, number)}</td></tr>'
        )
    head = '<tr><th scope="col">in</th><th scope="col">cosine</th><th scope="col">sentence</th></tr>'
    return _box(f"<table><thead>{head}</thead><tbody>{''.join(cells)}</tbody></table>")


def in_context(text: Text, number: int) -> str:
    """The word's sentence with the word marked; a long sentence is cut around it."""
    word = text.words[number]
    words = text.sentences[word.sentence]
    start, end = max(0, word.index - CONTEXT), min(len(words), word.index + CONTEXT + 1)
    segments = [
        "…" if start else "",
        escape(" ".join(words[start : word.index])),
        f"<mark>{escape(word.form)}</mark>",
        escape(" ".join(words[word.index + 1 : end])),
        "…" if end < len(words) else "",
    ]
    return " ".join(segment for segment in segments if segment)


def map_html(
    text: Text,
    occurrences: Sequence[int],
    points: np.ndarray,
    variance: np.ndarray,
    groups: Sequence[int],
    picked: int | None,
) -> str:
    """A numbered circle for each occurrence; a line joins a circle that was moved to its point (words, 2)."""
    labels = labels_of(text, occurrences)
    fitted = fit(points, FRAME)
    centres = separate(fitted, RADIUS + 1, FRAME)
    lines, circles = [], []
    for number, (x, y), (cx, cy), group in zip(occurrences, fitted, centres, groups, strict=True):
        colour = COLOURS[group % len(COLOURS)]
        if np.hypot(x - cx, y - cy) > RADIUS / 2:
            lines.append(f'<path d="M{x:.1f} {y:.1f}L{cx:.1f} {cy:.1f}" stroke="{colour}"/>')
        title = escape(" ".join(text.sentences[text.words[number].sentence])[:200])
        ring = ' stroke="#FFC21A" stroke-width="4"' if number == picked else ""
        circles.append(
            f'<g data-word="{number}"><title>{title}</title>'
            f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{RADIUS}" fill="{colour}"{ring}/>'
            f'<text x="{cx:.1f}" y="{cy + 4:.1f}" fill="#fff" font-size="{_font_size(labels[number])}" '
            f'font-weight="600" text-anchor="middle">{labels[number]}</text></g>'
        )
    percent = " and ".join(f"{share:.0%}" for share in variance)
    axes = f" Across and up: {percent} of how the vectors differ." if len(occurrences) > 1 else ""
    word = escape(text.words[occurrences[0]].form)
    return _box(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of the occurrences of {word}">'
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="6" fill="none" stroke="#888" '
        f'stroke-opacity=".5"/>{"".join(lines)}{"".join(circles)}</svg>'
        f'<p class="caption">Numbers are sentences, colours are groups.{axes}</p>'
    )


def isolated(text: str) -> str:
    """A text for a line of another direction: if it is written from the right, in Unicode's isolates."""
    is_from_right = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    return f"\u2068{text}\u2069" if is_from_right else text


def message_html(message: str) -> str:
    return _box(f"<p>{escape(message)}</p>")


def _font_size(label: str) -> int:
    return {1: 12, 2: 12, 3: 10}.get(len(label), 8)


def _badge(label: str, group: int | None) -> str:
    colour = GREY if group is None else COLOURS[group % len(COLOURS)]
    return f'<span class="number" style="background: {colour}">{escape(label)}</span>'


def _box(content: str) -> str:
    return f'<div class="elmo">{content}</div>'
