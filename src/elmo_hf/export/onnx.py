"""A model as an ONNX file, which onnxruntime runs without torch.

    elmo-hf export my-elmo/ my-elmo-onnx/ --layers average
    elmo-hf export my-elmo/ my-elmo-int8/ --int8
    export_onnx("my-elmo", "my-elmo-onnx", layers="all")

The folder holds `model.onnx`, config, tokenizer, `export.json` and a README.md with code that runs it. Before
it appears, onnxruntime reads some sentences, and its vectors must equal the model's within 1e-5. With int8
weights they differ by more; the difference is printed and stored in `export.json`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elmo_hf import kernels
from elmo_hf.embedding.embedder import Layers, parse_layers
from elmo_hf.errors import ElmoError
from elmo_hf.files import new_folder
from elmo_hf.loading import load
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

TOLERANCE = 1e-5  # relative to the largest number of a layer, or to 1
MAX_BYTES = 2**31 - 2**20  # of weights; an ONNX file is limited to 2 GiB
VOCABULARY_WORDS = 40  # words of the vocabulary that are compared
CHECK_SENTENCES = [
    "The bank of the river was covered with flowers in May .",
    "The bank lent him money , and the bank of the river was covered with money .",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft ! " * 3,
    "¿ Qué es 3.14 ? 漢字 и кириллица",
    "No",
    "",
]

README = """# {title} as ONNX

The inputs of `model.onnx` are `{ids}` and `attention_mask`; its outputs are `{outputs}`: {meaning}.
The numbers of sentences, words and characters are free, but there must be room for at least one word. Padding
on either side changes no vector, and the vectors of padding are zero.

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
session = onnxruntime.InferenceSession("model.onnx")
batch = tokenizer(["He sat on the bank.", "Why?"], padding=True, return_tensors="np")
inputs = {{node.name: batch[node.name] for node in session.get_inputs()}}
vectors = session.run(None, inputs)[0]
print(vectors.shape)  # (sentences, words, {width})
```

{difference}
"""


@dataclass(frozen=True)
class Difference:
    """Between the vectors of the file and of the model."""

    largest: float
    rms: float  # over the root mean square of the model's vectors


@dataclass(frozen=True)
class Export:
    """The content of export.json.

    Attributes:
        model: The model's name.
        layers: "top", "average", "all", or numbers.
        int8: Whether the LSTMs' weights are int8.
        outputs: The names of the outputs.
        bytes: The size of model.onnx.
        words: The number of words whose vectors were compared.
        differences: By output.
    """

    model: str
    layers: str
    int8: bool
    outputs: list[str]
    bytes: int
    words: int
    differences: dict[str, Difference]

    def __str__(self) -> str:
        differences = ", ".join(
            f"{output} {difference.largest:.1e} (rms {difference.rms:.1e})"
            for output, difference in self.differences.items()
        )
        return (
            f"On {self.words} words, the largest difference from the model in torch, and the root mean "
            f"square over that of the vectors: {differences}."
        )


def export_onnx(
    model: str | Path, output: str | Path, *, layers: str | int | list[int] = "top", int8: bool = False
) -> Export:
    """Write the folder `output`, whole or not at all.

    Args:
        model: A folder, or a name on the Hub. Of a language model or a task model, the biLM is exported.
        output: The folder to write. It must not exist, or be empty.
        layers: "top", "average", "all", or numbers from the bottom up, such as 0 or "0,2".
        int8: Whether to round the LSTMs' weights to int8: a smaller file, less exact numbers. The whole batch
            has one scale, so that a vector depends slightly on the other sentences.

    Returns:
        The content of export.json.

    Raises:
        ElmoError: The model cannot be loaded or exported, or the vectors differ. Nothing is written then.
    """
    check_packages()
    with new_folder(Path(output)) as folder:
        elmo, tokenizer = load(model, ElmoModel, dtype=torch.float32)
        chosen = parse_layers(layers, elmo.config)
        if chosen.num_mixes:
            raise ElmoError(
                "layers is mix, which the ONNX file cannot hold; export all, and mix its outputs."
            )
        check_size(elmo, int8)
        with torch.inference_mode(), readable_kernels():
            write_graph(elmo, chosen, int8, folder / "model.onnx")
            export = compare(elmo, tokenizer, chosen, title(model), int8, folder / "model.onnx")
        elmo.config.auto_map = {"AutoConfig": "configuration_elmo.ElmoConfig"}
        elmo.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        content = json.dumps(asdict(export), indent=1, ensure_ascii=False) + "\n"
        (folder / "export.json").write_text(content, encoding="utf-8")
        (folder / "README.md").write_text(readme(export, chosen, elmo), encoding="utf-8")
    return export


def check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ElmoError(
            f"the export needs the package {error.name}; `pip install 'elmo-hf[export]'`."
        ) from None


@contextmanager
def readable_kernels() -> Iterator[None]:
    """The readable definition is the reference, whatever kernels are chosen."""
    before = kernels.chosen()
    kernels.use("readable")
    try:
        yield
    finally:
        kernels.use(before)


def title(name: str | Path) -> str:
    """A name on the Hub; of a folder only the last component, since others read it."""
    return Path(name).resolve().name if Path(name).is_dir() else str(name)


def check_size(model: ElmoModel, int8: bool) -> None:
    """Raise if the weights exceed one ONNX file, as those of a large word table may."""
    total = sum(
        weight.numel() * (1 if int8 and name.startswith("layers.") else 4)
        for name, weight in model.state_dict().items()
    )
    if total > MAX_BYTES:
        raise ElmoError(
            f"the weights take {total:,} bytes, and one ONNX file holds {MAX_BYTES:,}; "
            + ("export a smaller model." if int8 else "int8 takes less.")
        )


# ---- the graph, compared with the model


def write_graph(model: ElmoModel, layers: Layers, int8: bool, path: Path) -> None:
    from elmo_hf.export.graph import build

    weights = {name: weight.float().numpy() for name, weight in model.state_dict().items()}
    is_stack = model.config.stacked_lstm_layers > 0
    pair = tuple(model.token_encoder.boundaries()) if is_stack else model._after_first()
    first = pair[0].float().numpy(), pair[1].float().numpy()
    graph = build(model.config, weights, first, layers.numbers, layers.columns, layers.is_average, int8)
    path.write_bytes(graph.SerializeToString())


def compare(
    model: ElmoModel, tokenizer: ElmoTokenizer, layers: Layers, name: str, int8: bool, path: Path
) -> Export:
    """Compare the vectors of the file with the model's on some sentences; raise if they differ too much."""
    batch = check_batch(tokenizer)
    is_word = batch["attention_mask"].bool().numpy()
    actual, expected = run(path, batch), torch_layers(model, batch, layers)
    differences = {
        output: difference(actual[output][is_word], vectors[is_word]) for output, vectors in expected.items()
    }
    for output, vectors in expected.items():
        limit = np.inf if int8 else TOLERANCE * max(1.0, float(np.abs(vectors).max()))
        largest = differences[output].largest
        if not largest <= limit:  # NaN, too
            raise ElmoError(
                f"the exported {output} differs from the model's by {largest:.1e}, and {limit:.1e} is "
                "allowed; nothing was written."
            )
    size = path.stat().st_size
    return Export(name, layers.name, int8, list(expected), size, int(is_word.sum()), differences)


def check_batch(tokenizer: ElmoTokenizer) -> dict[str, Tensor]:
    """The sentences to compare, and words from all over the vocabulary."""
    vocabulary = list(tokenizer.get_vocab())
    words = vocabulary[:: max(1, len(vocabulary) // VOCABULARY_WORDS)][:VOCABULARY_WORDS]
    sentences = [sentence.split() for sentence in CHECK_SENTENCES]
    return dict(tokenizer([*sentences, words], is_split_into_words=True, padding=True, return_tensors="pt"))


def run(path: Path, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """All outputs of a file, by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {node.name: batch[node.name].numpy() for node in session.get_inputs()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def torch_layers(model: ElmoModel, batch: dict[str, Tensor], layers: Layers) -> dict[str, np.ndarray]:
    """The model's vectors by output, each (batch, words, dim)."""
    hidden = model(**batch, output_hidden_states=True, return_dict=True).hidden_states
    chosen = [hidden[number] for number in layers.numbers]
    if layers.is_average:
        chosen = [torch.stack(chosen).mean(dim=0)]
    return dict(zip(layers.columns, (layer.numpy() for layer in chosen), strict=True))


def difference(actual: np.ndarray, expected: np.ndarray) -> Difference:
    """Between vectors (words, dim)."""
    error = actual.astype(np.float64) - expected
    mean_square = max(float(np.square(expected, dtype=np.float64).mean()), np.finfo(np.float64).tiny)
    return Difference(float(np.abs(error).max()), float((np.square(error).mean() / mean_square) ** 0.5))


def readme(export: Export, layers: Layers, model: ElmoModel) -> str:
    if layers.is_average:
        meaning = f"the average of layers 0 to {layers.numbers[-1]}"
    else:
        meaning = ", ".join(f"layer {number}" for number in layers.numbers)
    meaning += f" of 0 to {model.config.num_hidden_layers}, where 0 is the word without its context"
    return README.format(
        title=export.model,
        ids="char_ids" if model.config.token_encoder == "characters" else "input_ids",
        outputs="`, `".join(export.outputs),
        meaning=meaning,
        width=2 * model.config.projection_dim if layers.numbers == [0] else model.config.hidden_size,
        difference=("The LSTMs' weights are int8. " if export.int8 else "") + str(export),
    )
