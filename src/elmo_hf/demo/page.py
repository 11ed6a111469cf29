"""The demo's page: a gradio app that shows what `elmo_hf.demo.reading` reads.

uvicorn.run(app(build(reader), "127.0.0.1"), ws="none")
"""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from fastapi import FastAPI

from elmo_hf.demo import html
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.guard import Guard
from elmo_hf.demo.maths import cluster, mix, nearest, normalize, project
from elmo_hf.demo.reading import Reader, Text

MAX_NEAREST, MAX_ON_MAP, MAX_GROUPS = 10, 40, 5
MAX_WAITING = 64  # events in the queue
SAME_WORD, ALL_WORDS, MIX = "the same word", "all words", "mix"
FONTS = ("system-ui", "sans-serif")  # of the machine; gradio's own themes load theirs from Google
INTRODUCTION = """# A word in its context

ELMo gives a word another vector in every sentence. Type some sentences and pick a word: where does the \
model find it used in the same way?"""
ON_CLICK = """const pick = event => {
  const word = event.target.closest('[role=button][data-word]');
  if (word) trigger('click', {word: Number(word.dataset.word)});
};
element.addEventListener('click', pick);
element.addEventListener('keydown', event => {
  if (event.key !== 'Enter' && event.key !== ' ') return;
  event.preventDefault();
  pick(event);
});"""
# For gradio's app: the page's style, and nothing that is sent to, loaded from or kept for somebody else.
OPTIONS: dict[str, Any] = {
    "theme": gr.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
    "css": html.STYLE,
    "footer_links": ["settings"],
    "ssr_mode": False,
    "run_history": False,
    "enable_monitoring": False,
    "mcp_server": False,
}
# Values are checked by our functions: what gradio refuses, it refuses with a traceback in the terminal.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
# An event that comes while another of its kind is answered is answered next, and not dropped. All quick
# ones are answered in their order: else an old answer could come last, and stay.
READING: dict[str, Any] = {"concurrency_id": "reading", "trigger_mode": "always_last", **PRIVATE}
QUICK: dict[str, Any] = {**READING, "concurrency_id": "quick", "show_progress": "hidden"}
# A click on a word says which one, and "always_last" would forget that.
CLICK: dict[str, Any] = {**QUICK, "trigger_mode": "multiple"}


def build(reader: Reader) -> gr.Blocks:
    page = _Page(reader)
    with gr.Blocks(title="ELMo: a word in its context", analytics_enabled=False) as blocks:
        page.lay_out()
        page.connect(blocks)
    return blocks


def app(page: gr.Blocks, host: str) -> Guard:
    """The page as an ASGI app for a server that listens at `host`."""
    page.queue(max_size=MAX_WAITING)
    without_documentation = FastAPI(openapi_url=None)
    mounted = gr.mount_gradio_app(without_documentation, page, "/", server_name=host, **OPTIONS)
    return Guard(mounted, host, {number: len(event.inputs) for number, event in page.fns.items()})


class _Page:
    """The components of the page and their events. All events depend on the text that was read last."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    # ---- components

    def lay_out(self) -> None:
        gr.Markdown(INTRODUCTION)
        self.read_text = gr.State("")  # the textbox may have changed since
        with gr.Row():
            with gr.Column(min_width=320):
                self._lay_out_text()
                self._lay_out_word()
                self._lay_out_map()
            with gr.Column(min_width=320):
                self._lay_out_results()

    def _lay_out_text(self) -> None:
        first = next(iter(EXAMPLES.values()))
        label = "Sentences, one or more a line"
        self.textbox = gr.Textbox(first, lines=8, max_lines=24, label=label, elem_id="text")
        self.button = gr.Button("Read", variant="primary", elem_id="read")
        with gr.Row():
            self.examples = {word: gr.Button(word, size="sm", min_width=60) for word in EXAMPLES}
        self.note = gr.Markdown(elem_id="note")

    def _lay_out_word(self) -> None:
        label = "Its occurrence, to which the others are compared"
        self.word = gr.Dropdown([], label="Word", elem_id="word")
        self.occurrence = gr.Dropdown([], label=label, elem_id="occurrence")
        self.layer = gr.Radio(self._layer_choices(), value=MIX, label="Vectors", elem_id="layer")
        with gr.Group() as self.weights_group:
            self.weights = [
                gr.Slider(0, 1, 1, step=0.05, label=f"weight of layer {number}", elem_id=f"weight-{number}")
                for number in self.reader.mixable
            ]
        self.shares = gr.Markdown(elem_id="shares")

    def _lay_out_map(self) -> None:
        gr.Markdown("### A map of its senses")
        self.groups = gr.Slider(1, MAX_GROUPS, 2, step=1, label="Groups, by likeness", elem_id="groups")
        self.map = gr.HTML(elem_id="map")

    def _lay_out_results(self) -> None:
        gr.Markdown("### The text\nClick on a word.")
        self.words = gr.HTML(elem_id="words", js_on_load=ON_CLICK)
        gr.Markdown("### Nearest")
        self.among = gr.Radio([SAME_WORD, ALL_WORDS], value=SAME_WORD, label="Among", elem_id="among")
        self.table = gr.HTML(elem_id="nearest")
        self.tags = []
        if self.reader.tagger is not None:
            gr.Markdown("### Labels of the task model")
            self.tags = [gr.HighlightedText(show_label=False, elem_id="tags")]

    def _layer_choices(self) -> list[tuple[str, str]]:
        top = self.reader.num_layers - 1
        names = {0: "0: the word alone", top: f"{top}: the top"}
        layers = [(f"layer {names.get(number, number)}", str(number)) for number in range(top + 1)]
        return [("a mix of layers", MIX), *layers]

    # ---- events

    def connect(self, blocks: gr.Blocks) -> None:
        controls: list[Any] = [self.occurrence, self.layer, self.among, self.groups, *self.weights]
        inputs = [self.read_text, self.word, *controls]
        results = [self.words, self.table, self.map, self.shares]
        after_reading = [self.read_text, self.note, self.word, self.occurrence, *self.tags]

        def then_show(event: Any) -> None:
            event.then(self.show, inputs, results, **QUICK)

        for start in (blocks.load, self.button.click, self.textbox.submit):
            then_show(start(self.read, [self.textbox, self.word], after_reading, **READING))
        for word, button in self.examples.items():
            example = button.click(_example(word), None, [self.textbox, self.word], **QUICK)
            then_show(example.then(self.read, [self.textbox, self.word], after_reading, **READING))
        then_show(self.word.input(self.pick_word, [self.read_text, self.word], self.occurrence, **QUICK))
        then_show(
            self.words.click(self.pick_occurrence, self.read_text, [self.word, self.occurrence], **CLICK)
        )
        self.layer.input(_show_weights, self.layer, self.weights_group, **QUICK)
        for control in controls:
            control.input(self.show, inputs, results, **QUICK)

    def read(self, typed: str, word: str | None) -> list[Any]:
        """Read a new text. The picked word stays if the text has it; else the most frequent long one."""
        _require(isinstance(typed, str))
        text = self.reader.read(typed)
        keys = text.keys()
        long = [key for key in keys if len(key) > 3 and len(text.occurrences(key)) > 1]
        key = word if word in keys else next(iter(long or keys), None)
        choices = [(f"{html.isolated(key)} ({len(text.occurrences(key))})", key) for key in keys]
        tags = [self.reader.tag(typed)] if self.tags else []
        return [typed, text.note, gr.update(choices=choices, value=key), _occurrences(text, key), *tags]

    def pick_word(self, read_text: str, key: str) -> Any:
        return _occurrences(self.reader.read(read_text), key)

    def pick_occurrence(self, read_text: str, event: gr.EventData) -> list[Any]:
        """A word of the text was clicked."""
        text = self.reader.read(read_text)
        number: Any = (event._data or {}).get("word")
        _require(isinstance(number, int) and 0 <= number < len(text.words))
        key = text.words[number].key
        return [gr.update(value=key), _occurrences(text, key, number)]

    def show(
        self,
        read_text: str,
        key: str | None,
        picked: int | None,
        layer: str,
        among: str,
        num_groups: float,
        *weights: float,
    ) -> list[str]:
        """The words, the table, the map, and the weights of the mix."""
        text = self.reader.read(read_text)
        _require(layer in [value for _, value in self._layer_choices()], among in (SAME_WORD, ALL_WORDS))
        _require(_is_within(num_groups, 1, MAX_GROUPS), *(_is_within(weight, 0, 1) for weight in weights))
        if key is None or picked is None:
            return [html.message_html("There is no word in the text yet."), "", "", ""]
        occurrences = text.occurrences(key)
        _require(picked in occurrences)
        words = html.words_html(text, key, picked)
        if layer == MIX and not any(weights):
            message = html.message_html("All weights are 0; raise one of them.")
            return [words, message, message, ""]
        vectors = self._vectors(text, layer, weights)
        on_map = _around(occurrences, picked, MAX_ON_MAP)
        groups = cluster(vectors[on_map], int(num_groups))
        group_of = dict(zip(on_map, groups, strict=True))
        return [
            words,
            _table(text, vectors, picked, occurrences, group_of, among),
            _map(text, vectors, on_map, groups, picked, len(occurrences)),
            self._shares(weights) if layer == MIX else "",
        ]

    def _vectors(self, text: Text, layer: str, weights: Sequence[float]) -> Any:
        """(words, dim)"""
        if layer != MIX:
            return text.layers[int(layer)]
        return mix([text.layers[number] for number in self.reader.mixable], weights)

    def _shares(self, weights: Sequence[float]) -> str:
        shares = zip(self.reader.mixable, normalize(weights), strict=True)
        return " + ".join(f"{share:.2f} × layer\u00a0{number}" for number, share in shares)


def _require(*conditions: bool) -> None:
    """Refuse values that the page's components cannot have."""
    if not all(conditions):
        raise gr.Error(
            "the page and its text do not fit together; read the text again.", print_exception=False
        )


def _is_within(value: Any, minimum: float, maximum: float) -> bool:
    return isinstance(value, int | float) and minimum <= value <= maximum


def _example(word: str) -> Callable[[], tuple[str, Any]]:
    return lambda: (EXAMPLES[word], gr.update(choices=[word], value=word))


def _show_weights(layer: str) -> Any:
    return gr.update(visible=layer == MIX)


def _occurrences(text: Text, key: str | None, picked: int | None = None) -> Any:
    """The dropdown of a word's occurrences."""
    numbers = text.occurrences(key) if key else []
    labels = html.labels_of(text, numbers)
    choices = [(f"{labels[number]}: {html.isolated(_excerpt(text, number))}", number) for number in numbers]
    picked = picked if picked is not None else next(iter(numbers), None)
    return gr.update(choices=choices, value=picked)


def _excerpt(text: Text, number: int, context: int = 4) -> str:
    word = text.words[number]
    words = text.sentences[word.sentence]
    start, end = max(0, word.index - context), word.index + context + 1
    return ("… " if start else "") + " ".join(words[start:end]) + (" …" if end < len(words) else "")


def _around(numbers: list[int], picked: int, limit: int) -> list[int]:
    """At most `limit` consecutive numbers, the picked one among them."""
    index = numbers.index(picked)
    start = max(0, min(index - limit // 2, len(numbers) - limit))
    return numbers[start : start + limit]


def _table(
    text: Text, vectors: Any, picked: int, occurrences: list[int], group_of: dict[int, int], among: str
) -> str:
    all_words = [number for number, word in enumerate(text.words) if word.is_word]
    rows = nearest(vectors, picked, occurrences if among == SAME_WORD else all_words, MAX_NEAREST)
    if not rows:
        form = html.isolated(text.words[picked].form)
        return html.message_html(
            f"“{form}” occurs once; write another sentence with it, or look among all words."
        )
    return html.table_html(text, rows, html.labels_of(text, occurrences), group_of)


def _map(text: Text, vectors: Any, on_map: list[int], groups: list[int], picked: int, total: int) -> str:
    points, variance = project(vectors[on_map])
    svg = html.map_html(text, on_map, points, variance, groups, picked)
    if len(on_map) > 1 and not variance.any():
        svg += html.message_html("All occurrences have one and the same vector here.")
    if total > len(on_map):
        svg += html.message_html(f"The map has {len(on_map)} of {total:,} occurrences.")
    return svg
