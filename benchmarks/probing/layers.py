"""Two pictures: the similarity of the layers, and the occurrences of one word by their senses.

The first compares layers by linear CKA (Kornblith et al. 2019) over a sample of SemCor's sentences: 1 means
equal up to a rotation and a factor, 0 that they have nothing in common. The second draws a word's occurrences
in SemCor by their first two principal components, for each layer and model. Layer 0 is not drawn, as it does
not depend on the context.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.probing.data import Sentence, sense_name, words_of
from benchmarks.probing.vectors import Reader, starts_of, unit
from benchmarks.report import new_figure
from elmo_hf.errors import ElmoError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = 20_000  # by which the layers are compared
MIN_OCCURRENCES, MAX_SENSES = 5, 7  # of a drawn sense; drawn senses
# Okabe and Ito's colours for the colour-blind, and markers to tell senses apart without colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass
class Occurrences:
    """Sentences with the word, its place in each, and the index of its sense in `keys`."""

    word: str
    sentences: list[Sentence]
    places: list[int]
    senses: list[int]
    keys: list[str]  # the most frequent first


def find_occurrences(semcor: list[Sentence], word: str) -> Occurrences:
    """Occurrences of the word in this form with a single sense, of the senses that are frequent enough."""
    rows = [
        (sentence, mark.start, mark.keys[0])
        for sentence in semcor
        for mark in sentence.marks
        if mark.end == mark.start + 1 and len(mark.keys) == 1 and sentence.words[mark.start].lower() == word
    ]
    counts = Counter(key for _, _, key in rows)
    keys = [
        key for key in sorted(counts, key=lambda key: (-counts[key], key)) if counts[key] >= MIN_OCCURRENCES
    ]
    keys = keys[:MAX_SENSES]
    if len(keys) < 2:
        raise ElmoError(
            f"SemCor has no two senses of {word!r} with {MIN_OCCURRENCES} occurrences each to draw; choose "
            "another word in lower case with --word."
        )
    rows = [row for row in rows if row[2] in keys]
    senses = [keys.index(key) for _, _, key in rows]
    return Occurrences(word, [row[0] for row in rows], [row[1] for row in rows], senses, keys)


# ---- numbers


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of (words, dim) and (words, other dim), from 0 to 1: |X'Y|^2 / (|X'X| |Y'Y|), centred."""
    x, y = (rows - rows.mean(axis=0) for rows in (x.astype(np.float64), y.astype(np.float64)))
    shared = np.linalg.norm(x.T @ y) ** 2
    return float(shared / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def compare_layers(readers: Sequence[Reader], semcor: list[Sentence], seed: int) -> dict[str, Any]:
    sentences = words_of(sample_sentences(semcor, seed))
    layers, names = [], []
    for reader in readers:
        vectors = reader.vectors(sentences, "sample of SemCor")
        layers += list(vectors)
        names += [f"{reader.name}, layer {number}" for number in range(len(vectors))]
    cka = [[round(linear_cka(x, y), 4) for y in layers] for x in layers]
    counts = {"sentences": len(sentences), "words": sum(map(len, sentences))}
    return {"names": names, "cka": cka, "counts": counts}


def sample_sentences(semcor: list[Sentence], seed: int) -> list[Sentence]:
    chosen, words = [], 0
    for number in np.random.default_rng(seed).permutation(len(semcor)):
        if words >= WORDS:
            break
        chosen.append(semcor[number])
        words += len(semcor[number].words)
    return chosen


def principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of (points, dim): (points, 2), and their shares of the variance (2).

    The sign of a component is arbitrary; its largest value is made positive.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[[0, 1], largest])[:, None]
    return centred @ directions.T, sizes[:2] ** 2 / max((sizes**2).sum(), 1e-30)


def same_sense(vectors: np.ndarray, senses: Sequence[int]) -> float:
    """The percentage of occurrences whose nearest neighbour by cosine has the same sense."""
    cosines = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    numbers = np.array(senses)
    return round(100 * float((numbers[cosines.argmax(axis=1)] == numbers).mean()), 2)


def map_word(readers: Sequence[Reader], occurrences: Occurrences) -> dict[str, Any]:
    sentences = words_of(occurrences.sentences)
    rows = starts_of(sentences)[:-1] + np.array(occurrences.places)
    panels = []
    for reader in readers:
        vectors = reader.vectors(sentences, occurrences.word)[:, rows]
        for layer in sorted({1, reader.layers - 1}):
            points, shares = principal(vectors[layer])
            panels.append(
                {
                    "name": f"{reader.name}, layer {layer}",
                    "nearest_has_same_sense": same_sense(vectors[layer], occurrences.senses),
                    "variance": [round(100 * float(share), 2) for share in shares],
                    "points": np.round(points, 4).tolist(),
                }
            )
    senses = occurrences.senses
    counts = {key: senses.count(number) for number, key in enumerate(occurrences.keys)}
    return {"word": occurrences.word, "occurrences": counts, "senses": senses, "panels": panels}


def probe_layers(
    readers: Sequence[Reader], semcor: list[Sentence], occurrences: Occurrences, seed: int
) -> dict[str, Any]:
    return {"likeness": compare_layers(readers, semcor, seed), "map": map_word(readers, occurrences)}


# ---- pictures


def draw_similarity(similarity: dict[str, Any]) -> "Figure":
    """A heat map with its numbers."""
    names, values = similarity["names"], np.array(similarity["cka"])
    side = 2.6 + 0.75 * len(names)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    models = [name.split(",")[0] for name in names]
    for place in range(1, len(names)):
        if models[place] != models[place - 1]:
            axes.axhline(place - 0.5, color="white", linewidth=3)
            axes.axvline(place - 0.5, color="white", linewidth=3)
    words = similarity["counts"]["words"]
    axes.set_title(f"Similarity of layers over {words:,} words of SemCor", fontsize=12)
    figure.colorbar(image, label="linear CKA (1: equal up to a rotation)", shrink=0.8)
    return figure


def draw_map(word_map: dict[str, Any]) -> "Figure":
    """A panel for each model and layer, and one legend below."""
    panels = word_map["panels"]
    rows = len({panel["name"].split(",")[0] for panel in panels})
    columns = len(panels) // rows
    figure = new_figure(4.6 * columns + 0.8, 3.9 * rows + 1.8)
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True):
        draw_panel(axes, panel, word_map)
    title = f"{len(word_map['senses'])} occurrences of “{word_map['word']}” in SemCor, by sense"
    figure.suptitle(title, fontsize=13, fontweight="bold", parse_math=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(columns, 2), frameon=False, fontsize=10
    )
    return figure


def draw_panel(axes: "Axes", panel: dict[str, Any], word_map: dict[str, Any]) -> None:
    points, senses = np.array(panel["points"]), np.array(word_map["senses"])
    for number, (key, count) in enumerate(word_map["occurrences"].items()):
        x, y = points[senses == number].T
        label = f"{sense_name(key)} ({key}), {count}"
        colour, marker = COLOURS[number], MARKERS[number]
        axes.scatter(x, y, s=46, color=colour, marker=marker, edgecolors="white", linewidths=0.5, label=label)
    axes.set_title(
        f"{panel['name']}: nearest has same sense {panel['nearest_has_same_sense']:.0f}%", fontsize=10
    )
    for direction, share in zip("xy", panel["variance"], strict=True):
        axes.set(**{f"{direction}label": f"{share:.0f}% of the variance"})
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def layers_markdown(result: dict[str, Any], names: dict[str, str]) -> str:
    drawn = result["map"]
    most = max(drawn["occurrences"].values()) / len(drawn["senses"])
    shares = ", ".join(
        f"{panel['nearest_has_same_sense']:.0f}% ({panel['name']})" for panel in drawn["panels"]
    )
    return (
        f"![Similarity of the layers]({names['layers']})\n\n![{drawn['word']} by sense]({names['map']})\n\n"
        f"Occurrences of “{drawn['word']}” whose nearest neighbour has the same sense: {shares}. The most "
        f"frequent sense has {most:.0%} of all.\n"
    )
