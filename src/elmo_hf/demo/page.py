"""The demo's page: a gradio app that shows what `elmo_hf.demo.reading` reads.

page = build(reader)
page.launch(**LOOK)
"""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from elmo_hf.demo import html
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.maths import flat_map, groups, mix, nearest, shares_of
from elmo_hf.demo.reading import Reader, Text

MOST_NEAREST, MOST_ON_MAP, MOST_GROUPS = 10, 40, 5
SAME_WORD, ALL_WORDS, MIX = "the same word", "all words", "mix"
FONTS = ("system-ui", "sans-serif")  # what the machine has; gradio's own themes ask Google for theirs
INTRODUCTION = """# A word in its context

ELMo gives a word another vector in every sentence. Type some sentences and pick a word: where does the \
model find it used in the same way?"""
CLICKED = """element.addEventListener('click', event => {
  const word = event.target.closest('button[data-word]');
  if (word) trigger('click', {word: Number(word.dataset.word)});
});"""
# What `Blocks.launch` must be told for the page to look as it should, and to keep to itself.
LOOK: dict[str, Any] = {
    "theme": gr.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
    "css": html.STYLE,
    "footer_links": ["settings"],
    "ssr_mode": False,
    "share": False,
    "quiet": True,
}


def build(reader: Reader) -> gr.Blocks:
    page = _Page(reader)
    with gr.Blocks(title="ELMo: a word in its context", analytics_enabled=False) as blocks:
        page.lay_out()
        page.connect(blocks)
    return blocks


class _Page:
    """The parts of the page, and what they do. All of them are functions of the text that was read last."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    # ---- what stands where

    def lay_out(self) -> None:
        gr.Markdown(INTRODUCTION)
        self.read_text = gr.State("")  # the box may have been typed in since
        with gr.Row():
            with gr.Column(min_width=320):
                self._lay_out_text()
                self._lay_out_word()
                self._lay_out_map()
            with gr.Column(min_width=320):
                self._lay_out_results()

    def _lay_out_text(self) -> None:
        first = next(iter(EXAMPLES.values()))
        self.box = gr.Textbox(
            first, lines=8, max_lines=24, label="Sentences, one or more a line", elem_id="text"
        )
        self.button = gr.Button("Read", variant="primary", elem_id="read")
        with gr.Row():
            self.examples = {word: gr.Button(word, size="sm", min_width=60) for word in EXAMPLES}
        self.note = gr.Markdown(elem_id="note")

    def _lay_out_word(self) -> None:
        reader = self.reader
        self.word = gr.Dropdown([], label="Word", elem_id="word")
        self.occurrence = gr.Dropdown(
            [], label="Its occurrence, to which the others are compared", elem_id="occurrence"
        )
        self.layer = gr.Radio(self._layer_choices(), value=MIX, label="Vectors", elem_id="layer")
        with gr.Group() as self.weights_group:
            self.weights = [
                gr.Slider(0, 1, 1, step=0.05, label=f"weight of layer {number}", elem_id=f"weight-{number}")
                for number in reader.mixable
            ]
        self.shares = gr.Markdown(elem_id="shares")

    def _lay_out_map(self) -> None:
        gr.Markdown("### A map of its senses")
        self.groups = gr.Slider(1, MOST_GROUPS, 2, step=1, label="Groups, by likeness", elem_id="groups")
        self.map = gr.HTML(elem_id="map")

    def _lay_out_results(self) -> None:
        gr.Markdown("### The text\nClick on a word.")
        self.words = gr.HTML(elem_id="words", js_on_load=CLICKED)
        gr.Markdown("### Nearest")
        self.among = gr.Radio([SAME_WORD, ALL_WORDS], value=SAME_WORD, label="Among", elem_id="among")
        self.table = gr.HTML(elem_id="nearest")
        if self.reader.tagger is not None:
            gr.Markdown("### Labels of the task model")
            self.tags = gr.HighlightedText(show_label=False, elem_id="tags")

    def _layer_choices(self) -> list[tuple[str, str]]:
        top = self.reader.num_layers - 1
        names = {0: "0: the word alone", top: f"{top}: the top"}
        return [("a mix of layers", MIX)] + [
            (f"layer {names.get(number, number)}", str(number)) for number in range(top + 1)
        ]

    # ---- what happens when

    def connect(self, blocks: gr.Blocks) -> None:
        settings = [
            self.read_text,
            self.word,
            self.occurrence,
            self.layer,
            self.among,
            self.groups,
            *self.weights,
        ]
        results = [self.words, self.table, self.map, self.shares]
        known: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        def then_show(event: Any) -> None:
            event.then(self.show, settings, results, **known)

        read = [
            self.read_text,
            self.note,
            self.word,
            self.occurrence,
            *([self.tags] if self.reader.tagger else []),
        ]
        for start in (blocks.load, self.button.click, self.box.submit):
            then_show(start(self.take, [self.box, self.word], read, api_visibility="private"))
        for word, button in self.examples.items():
            example = button.click(_example(word), None, [self.box, self.word], **known)
            then_show(example.then(self.take, [self.box, self.word], read, api_visibility="private"))
        then_show(self.word.input(self.pick_word, [self.read_text, self.word], self.occurrence, **known))
        then_show(self.words.click(self.pick, self.read_text, [self.word, self.occurrence], **known))
        self.layer.input(
            lambda layer: gr.update(visible=layer == MIX), self.layer, self.weights_group, **known
        )
        parts: list[Any] = [self.occurrence, self.layer, self.among, self.groups, *self.weights]
        for part in parts:
            part.input(self.show, settings, results, trigger_mode="always_last", **known)

    def take(self, box: str, word: str | None) -> list[Any]:
        """A new text: the word that was picked if it is there, or the first of its frequent ones."""
        text = self.reader.read(box)
        keys = text.keys()
        long = [key for key in keys if len(key) > 3 and len(text.occurrences(key)) > 1]
        key = word if word in keys else next(iter(long or keys), None)
        choices = [(f"{key} ({len(text.occurrences(key))})", key) for key in keys]
        tags = [self.reader.tag(box)] if self.reader.tagger else []
        return [box, text.note, gr.update(choices=choices, value=key), _occurrences(text, key), *tags]

    def pick_word(self, read_text: str, key: str) -> Any:
        return _occurrences(self.reader.read(read_text), key)

    def pick(self, read_text: str, event: gr.EventData) -> list[Any]:
        """A word was clicked."""
        text = self.reader.read(read_text)
        number = event.word
        if not isinstance(number, int) or not 0 <= number < len(text.words):
            raise gr.Error("there is no such word in the text; read it again.")
        key = text.words[number].key
        return [gr.update(value=key), _occurrences(text, key, number)]

    # ---- what is shown

    def show(
        self,
        read_text: str,
        key: str | None,
        picked: int | None,
        layer: str,
        among: str,
        number: int,
        *weights: float,
    ) -> list[str]:
        """The words, the table, the map, and the mix in words."""
        text = self.reader.read(read_text)
        if key is None or picked is None:
            return [html.message_html("There is no word in the text yet."), "", "", ""]
        words = html.words_html(text, key, picked)
        if layer == MIX and not any(weights):
            message = html.message_html("All weights are 0; raise one of them.")
            return [words, message, message, ""]
        vectors = self._vectors(text, layer, weights)
        same = text.occurrences(key)
        on_map = _around(same, picked, MOST_ON_MAP)
        found = groups(vectors[on_map], number)
        of_group = dict(zip(on_map, found, strict=True))
        return [
            words,
            _table(text, vectors, picked, same, of_group, among),
            _map(text, vectors, on_map, found, picked, len(same)),
            self._shares(weights) if layer == MIX else "",
        ]

    def _vectors(self, text: Text, layer: str, weights: Sequence[float]) -> Any:
        """(words, dim)"""
        if layer != MIX:
            return text.layers[int(layer)]
        return mix([text.layers[number] for number in self.reader.mixable], weights)

    def _shares(self, weights: Sequence[float]) -> str:
        shares = zip(self.reader.mixable, shares_of(weights), strict=True)
        return " + ".join(f"{share:.2f} × layer\u00a0{number}" for number, share in shares)


def _example(word: str) -> Callable[[], tuple[str, Any]]:
    return lambda: (EXAMPLES[word], gr.update(choices=[word], value=word))


def _occurrences(text: Text, key: str | None, picked: int | None = None) -> Any:
    """The dropdown of a word's occurrences."""
    numbers = text.occurrences(key) if key else []
    labels = html.labels_of(text, numbers)
    choices = [(f"{labels[number]}: {_short(text, number)}", number) for number in numbers]
    picked = picked if picked is not None else next(iter(numbers), None)
    return gr.update(choices=choices, value=picked)


def _short(text: Text, number: int, around: int = 4) -> str:
    word = text.words[number]
    words = text.sentences[word.sentence]
    start, end = max(0, word.place - around), word.place + around + 1
    return ("… " if start else "") + " ".join(words[start:end]) + (" …" if end < len(words) else "")


def _around(numbers: list[int], picked: int, most: int) -> list[int]:
    """So many of the numbers, with the picked one among them."""
    place = numbers.index(picked)
    start = max(0, min(place - most // 2, len(numbers) - most))
    return numbers[start : start + most]


def _table(
    text: Text, vectors: Any, picked: int, same: list[int], of_group: dict[int, int], among: str
) -> str:
    words = same if among == SAME_WORD else [n for n, word in enumerate(text.words) if word.is_word]
    rows = nearest(vectors, picked, words, MOST_NEAREST)
    if not rows:
        form = text.words[picked].form
        return html.message_html(
            f"“{form}” occurs once; write another sentence with it, or look among all words."
        )
    return html.table_html(text, rows, html.labels_of(text, same), of_group)


def _map(text: Text, vectors: Any, on_map: list[int], found: list[int], picked: int, total: int) -> str:
    points, shares = flat_map(vectors[on_map])
    drawn = html.map_html(text, on_map, points, shares, found, picked)
    if len(on_map) > 1 and not shares.any():
        drawn += html.message_html("All occurrences have one and the same vector here.")
    if total > len(on_map):
        drawn += html.message_html(f"The map has {len(on_map)} of {total:,} occurrences.")
    return drawn
