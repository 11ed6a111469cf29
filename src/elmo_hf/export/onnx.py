"""A model as an ONNX file, which onnxruntime runs without torch.

    elmo-hf export my-elmo/ my-elmo-onnx/ --layers average
    elmo-hf export my-elmo/ my-elmo-int8/ --int8
    export_onnx("my-elmo", "my-elmo-onnx", layers="all")

The folder has `model.onnx`, config, tokenizer, `export.json` and a README.md with the lines that run it. It
is written only after onnxruntime has read some sentences with it and its vectors were those of the model
within 1e-5; with eight bits, how far they are away is said and kept in `export.json`.
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
from elmo_hf.files import new_folder
from elmo_hf.loading import load
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

TOLERANCE = 1e-5  # of the largest number of a layer, or of 1
MAX_BYTES = 2**31 - 2**20  # of weights; an ONNX file holds less than 2 GiB
VOCABULARY_WORDS = 40  # that the check takes from the vocabulary
CHECK_SENTENCES = [
    "The bank of the river was covered with flowers in May .",
    "The bank lent him money , and the bank of the river was covered with money .",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft ! " * 3,
    "¿ Qué es 3.14 ? 漢字 и кириллица",
    "No",
    "",
]

README = """# {title} as ONNX

`model.onnx` reads `{ids}` and `attention_mask`, and puts out `{outputs}`: {meaning}.
Batch, words and characters may be of any size, with a place for at least one word; padding on either side
changes nothing, and its vectors are zero.

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)
session = onnxruntime.InferenceSession("model.onnx")
batch = tokenizer(["He sat on the bank.", "Why?"], padding=True, return_tensors="np")
names = [one.name for one in session.get_inputs()]
vectors = session.run(None, {{name: batch[name] for name in names}})[0]
print(vectors.shape)  # (sentences, words, {width})
```

{difference}
"""


@dataclass(frozen=True)
class Difference:
    """Between the file's vectors and the model's."""

    largest: float
    rms: float  # over the rms of the model's vectors


@dataclass(frozen=True)
class Export:
    """What was written, as it stands in export.json."""

    model: str
    layers: str
    int8: bool
    outputs: list[str]
    bytes: int
    words: int  # that were compared
    differences: dict[str, Difference]

    def __str__(self) -> str:
        found = [f"{name} {one.largest:.1e} (rms {one.rms:.1e})" for name, one in self.differences.items()]
        return (
            f"On {self.words} words, the largest difference from the model in torch, and the root mean "
            f"square over that of the vectors: {', '.join(found)}."
        )


def export_onnx(
    model: str | Path, output: str | Path, *, layers: str | int | list[int] = "top", int8: bool = False
) -> Export:
    """Writes the folder `output`, whole or not at all, and returns what was found.

    Args:
        model: a folder, or a name on the Hub. A language model, or a task's model, gives its biLM.
        layers: "top", "average", "all", or numbers from the bottom up: 0, "0,2", [0, 2].
        int8: the LSTMs' weights with eight bits: a smaller file, other numbers. What is read at once has one
            scale, so that a vector also depends, a little, on the other sentences of its batch.
    """
    need_onnx()
    with new_folder(Path(output)) as folder:
        elmo, tokenizer = load(model, ElmoModel, dtype=torch.float32)
        chosen = parse_layers(layers, elmo.config)
        check_size(elmo, int8)
        with torch.inference_mode(), readable():
            write_graph(elmo, chosen, int8, folder / "model.onnx")
            found = compare(elmo, tokenizer, chosen, title(model), int8, folder / "model.onnx")
        elmo.config.auto_map = {"AutoConfig": "configuration_elmo.ElmoConfig"}
        elmo.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        content = json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n"
        (folder / "export.json").write_text(content, encoding="utf-8")
        (folder / "README.md").write_text(readme(found, chosen, elmo), encoding="utf-8")
    return found


def need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"the export needs the package {error.name}; `pip install 'elmo-hf[export]'`."
        ) from None


@contextmanager
def readable() -> Iterator[None]:
    """The definition is what the file is held to, whatever is chosen for speed."""
    before = kernels.chosen()
    kernels.use("readable")
    try:
        yield
    finally:
        kernels.use(before)


# ---- what goes in


def title(name: str | Path) -> str:
    """A name on the Hub as it is; of a folder only the last part, which others may read."""
    return Path(name).resolve().name if Path(name).is_dir() else str(name)


def check_size(model: ElmoModel, int8: bool) -> None:
    """A language model of a large table may be too much for one file."""
    total = sum(
        weight.numel() * (1 if int8 and name.startswith("layers.") else 4)
        for name, weight in model.state_dict().items()
    )
    if total > MAX_BYTES:
        raise ValueError(
            f"the weights take {total:,} bytes, and one ONNX file holds {MAX_BYTES:,}; "
            + ("export a smaller model." if int8 else "int8 takes less.")
        )


# ---- the graph, and whether it is right


def write_graph(model: ElmoModel, layers: Layers, int8: bool, path: Path) -> None:
    from elmo_hf.export.graph import build

    weights = {name: weight.float().numpy() for name, weight in model.state_dict().items()}
    h, c = (state.float().numpy() for state in model._after_first())
    chosen = layers.numbers, layers.columns, layers.is_average
    path.write_bytes(build(model.config, weights, (h, c), *chosen, int8).SerializeToString())


def compare(
    model: ElmoModel, tokenizer: ElmoTokenizer, layers: Layers, name: str, int8: bool, path: Path
) -> Export:
    """The file's vectors of some sentences beside the model's; refused if they are not the same."""
    batch = check_batch(tokenizer)
    found = run(path, batch)
    wanted = torch_layers(model, batch, layers)
    is_word = batch["attention_mask"].bool().numpy()
    differences = {
        output: difference(found[output][is_word], vectors[is_word]) for output, vectors in wanted.items()
    }
    for output, vectors in wanted.items():
        limit = TOLERANCE * max(1.0, float(np.abs(vectors).max()))
        if not differences[output].largest <= (np.inf if int8 else limit):
            raise ValueError(
                f"the exported {output} differs from the model's by {differences[output].largest:.1e}, and "
                f"{limit:.1e} is allowed; nothing was written."
            )
    size = path.stat().st_size
    return Export(name, layers.name, int8, list(wanted), size, int(is_word.sum()), differences)


def check_batch(tokenizer: ElmoTokenizer) -> dict[str, Tensor]:
    words = list(tokenizer.get_vocab())
    some = words[:: max(1, len(words) // VOCABULARY_WORDS)][:VOCABULARY_WORDS]
    sentences = [sentence.split() for sentence in CHECK_SENTENCES]
    return dict(tokenizer([*sentences, some], is_split_into_words=True, padding=True, return_tensors="pt"))


def run(path: Path, batch: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """All outputs of a file, by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {one.name: batch[one.name].numpy() for one in session.get_inputs()}
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def torch_layers(model: ElmoModel, batch: dict[str, Tensor], layers: Layers) -> dict[str, np.ndarray]:
    hidden = model(**batch, output_hidden_states=True, return_dict=True).hidden_states
    chosen = [hidden[number] for number in layers.numbers]
    if layers.is_average:
        chosen = [torch.stack(chosen).mean(dim=0)]
    return dict(zip(layers.columns, (one.numpy() for one in chosen), strict=True))


def difference(found: np.ndarray, wanted: np.ndarray) -> Difference:
    """Of vectors (words, dim)."""
    apart = found.astype(np.float64) - wanted
    size = max(float(np.square(wanted, dtype=np.float64).mean()), np.finfo(np.float64).tiny)
    return Difference(float(np.abs(apart).max()), float((np.square(apart).mean() / size) ** 0.5))


def readme(found: Export, layers: Layers, model: ElmoModel) -> str:
    if layers.is_average:
        meaning = f"the average of layers 0 to {layers.numbers[-1]}"
    else:
        meaning = ", ".join(f"layer {number}" for number in layers.numbers)
    meaning += f" of 0 to {model.config.num_hidden_layers}, 0 being the word without its context"
    return README.format(
        title=found.model,
        ids="char_ids" if model.config.token_encoder == "characters" else "input_ids",
        outputs="`, `".join(found.outputs),
        meaning=meaning,
        width=2 * model.config.projection_dim if layers.numbers == [0] else model.config.hidden_size,
        difference=("The LSTMs' weights have eight bits. " if found.int8 else "") + str(found),
    )
