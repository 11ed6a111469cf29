"""Two pictures: how alike the layers are, and the occurrences of one word by their senses.

The first compares layers by linear CKA (Kornblith et al. 2019) over the words of some sentences of SemCor: 1
means that one is the other but for a rotation and a factor, 0 that they have nothing in common. The second
draws a word's occurrences in SemCor by the two directions in which they differ most (PCA, of each layer and
model by itself). Layer 0 is not drawn, as it is the same wherever the word stands.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.probing.data import Sentence, words_of
from benchmarks.probing.names import sense_name
from benchmarks.probing.vectors import Reader, starts_of, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = 20_000  # that the layers are compared by
LEAST, MOST_SENSES = 5, 7  # occurrences of a sense, and senses, to be drawn
# Colours that also those see apart who see fewer (Okabe and Ito), and signs for those who see none.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
SIGNS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass
class Occurrences:
    """Sentences with the word, its place in each, and the number of its sense in `keys`."""

    word: str
    sentences: list[Sentence]
    places: list[int]
    senses: list[int]
    keys: list[str]  # the most frequent first


def find_occurrences(semcor: list[Sentence], word: str) -> Occurrences:
    """The word in this very form, where it has a single sense that is frequent enough to be drawn."""
    rows = [
        (sentence, mark.start, mark.keys[0])
        for sentence in semcor
        for mark in sentence.marks
        if mark.end == mark.start + 1 and len(mark.keys) == 1 and sentence.words[mark.start].lower() == word
    ]
    counts = Counter(key for _, _, key in rows)
    keys = [key for key in sorted(counts, key=lambda key: (-counts[key], key)) if counts[key] >= LEAST]
    keys = keys[:MOST_SENSES]
    if len(keys) < 2:
        raise ValueError(
            f"SemCor has no two senses of {word!r} with {LEAST} occurrences each, so nothing can be "
            "drawn; name another word, in small letters."
        )
    rows = [row for row in rows if row[2] in keys]
    senses = [keys.index(key) for _, _, key in rows]
    return Occurrences(word, [row[0] for row in rows], [row[1] for row in rows], senses, keys)


# ---- numbers


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """(words, dim) and (words, other dim) -> 0 to 1"""
    x, y = (rows - rows.mean(axis=0) for rows in (x.astype(np.float64), y.astype(np.float64)))
    shared = np.linalg.norm(x.T @ y) ** 2
    return float(shared / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def compare_layers(readers: Sequence[Reader], semcor: list[Sentence], seed: int) -> dict[str, Any]:
    sentences = words_of(some_sentences(semcor, seed))
    layers, names = [], []
    for reader in readers:
        vectors = reader.vectors(sentences, "some of SemCor")
        layers += list(vectors)
        names += [f"{reader.name}, layer {number}" for number in range(len(vectors))]
    cka = [[round(linear_cka(x, y), 4) for y in layers] for x in layers]
    counts = {"sentences": len(sentences), "words": sum(map(len, sentences))}
    return {"names": names, "cka": cka, "counts": counts}


def some_sentences(semcor: list[Sentence], seed: int) -> list[Sentence]:
    chosen, words = [], 0
    for number in np.random.default_rng(seed).permutation(len(semcor)):
        if words >= WORDS:
            break
        chosen.append(semcor[number])
        words += len(semcor[number].words)
    return chosen


def principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points, dim) -> their places by the two directions of most variance (points, 2), and its shares (2).

    A direction may as well be its opposite; the one taken has its largest number above zero.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[[0, 1], largest])[:, None]
    return centred @ directions.T, sizes[:2] ** 2 / max((sizes**2).sum(), 1e-30)


def same_sense(vectors: np.ndarray, senses: Sequence[int]) -> float:
    """The share of occurrences, in percent, whose nearest other one by cosine has the same sense."""
    cosines = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    numbers = np.array(senses)
    return round(100 * float((numbers[cosines.argmax(axis=1)] == numbers).mean()), 2)


def map_word(readers: Sequence[Reader], found: Occurrences) -> dict[str, Any]:
    sentences = words_of(found.sentences)
    rows = starts_of(sentences)[:-1] + np.array(found.places)
    panels = []
    for reader in readers:
        vectors = reader.vectors(sentences, found.word)[:, rows]
        for layer in sorted({1, reader.layers - 1}):
            points, shares = principal(vectors[layer])
            panels.append(
                {
                    "name": f"{reader.name}, layer {layer}",
                    "nearest_has_same_sense": same_sense(vectors[layer], found.senses),
                    "variance": [round(100 * float(share), 2) for share in shares],
                    "points": np.round(points, 4).tolist(),
                }
            )
    counts = {key: found.senses.count(number) for number, key in enumerate(found.keys)}
    return {"word": found.word, "occurrences": counts, "senses": found.senses, "panels": panels}


def probe_layers(
    readers: Sequence[Reader], semcor: list[Sentence], found: Occurrences, seed: int
) -> dict[str, Any]:
    return {"likeness": compare_layers(readers, semcor, seed), "map": map_word(readers, found)}


# ---- pictures


def new_figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ValueError("a picture needs the package matplotlib; `pip install 'elmo-hf[plot]'`.") from None
    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=150, layout=layout)


def draw_likeness(found: dict[str, Any]) -> "Figure":
    """A heat map with its numbers."""
    names, values = found["names"], np.array(found["cka"])
    side = 2.6 + 0.75 * len(names)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    kinds = [name.split(",")[0] for name in names]
    for place in range(1, len(names)):
        if kinds[place] != kinds[place - 1]:
            axes.axhline(place - 0.5, color="white", linewidth=3)
            axes.axvline(place - 0.5, color="white", linewidth=3)
    axes.set_title(f"How alike layers are, over {found['counts']['words']:,} words of SemCor", fontsize=12)
    figure.colorbar(image, label="linear CKA (1: the same but for a rotation)", shrink=0.8)
    return figure


def draw_map(found: dict[str, Any]) -> "Figure":
    """A panel for each model and layer, and one legend below."""
    panels = found["panels"]
    kinds = list(dict.fromkeys(panel["name"].split(",")[0] for panel in panels))
    columns = len(panels) // len(kinds)
    figure = new_figure(4.6 * columns + 0.8, 3.9 * len(kinds) + 1.8)
    for axes, panel in zip(figure.subplots(len(kinds), columns, squeeze=False).flat, panels, strict=True):
        draw_panel(axes, panel, found)
    title = f"{len(found['senses'])} occurrences of “{found['word']}” in SemCor, by sense"
    figure.suptitle(title, fontsize=13, fontweight="bold", parse_math=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, 2), frameon=False, fontsize=10
    )
    return figure


def draw_panel(axes: "Axes", panel: dict[str, Any], found: dict[str, Any]) -> None:
    points, senses = np.array(panel["points"]), np.array(found["senses"])
    for number, (key, count) in enumerate(found["occurrences"].items()):
        x, y = points[senses == number].T
        label = f"{sense_name(key)} ({key}), {count}"
        colour, sign = COLOURS[number], SIGNS[number]
        axes.scatter(x, y, s=46, color=colour, marker=sign, edgecolors="white", linewidths=0.5, label=label)
    axes.set_title(
        f"{panel['name']}: nearest has same sense {panel['nearest_has_same_sense']:.0f}%", fontsize=10
    )
    for direction, share in zip("xy", panel["variance"], strict=True):
        axes.set(**{f"{direction}label": f"{share:.0f}% of the variance"})
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def layers_markdown(found: dict[str, Any], names: dict[str, str]) -> str:
    drawn = found["map"]
    most = max(drawn["occurrences"].values()) / len(drawn["senses"])
    shares = ", ".join(
        f"{panel['nearest_has_same_sense']:.0f}% ({panel['name']})" for panel in drawn["panels"]
    )
    return (
        f"![How alike the layers are]({names['layers']})\n\n![{drawn['word']} by sense]({names['map']})\n\n"
        f"Occurrences of “{drawn['word']}” whose nearest other one has the same sense: {shares}. The most "
        f"frequent sense has {most:.0%} of all.\n"
    )
