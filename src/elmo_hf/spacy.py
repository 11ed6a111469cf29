"""ELMo in spaCy: the component "elmo", and the architecture "elmo_hf.Tok2Vec.v1" for other components.

    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("elmo", config={"model": "my-elmo", "layers": "average"})
    doc = nlp("The bank lent him money.")
    doc[1].vector, doc.tensor    # (dim,), (tokens, dim)

spaCy imports this file by the entry points of the installed package, when a pipeline names either of the two.
A word's vector comes from its sentence, or from the whole text if no component before has marked sentences.
The ELMo is read when it is first needed, and is never trained; it is saved with the pipeline.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import srsly
import torch
from spacy.language import Language
from spacy.pipeline.tok2vec import Tok2Vec
from spacy.tokens import Doc, Span, Token
from spacy.training import Example
from spacy.util import registry
from thinc.api import Model, Shim, get_array_module, get_torch_default_device

from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.errors import ElmoError
from elmo_hf.loading import evaluating, load, quiet
from elmo_hf.model.modeling_elmo import ElmoModel

ARCHITECTURE = "elmo_hf.Tok2Vec.v1"
CACHE_WORDS = 10_000  # whose encodings the batches of one call share


# ---- the model, as Thinc's layers want it


class ElmoShim(Shim):
    """An ELMo and its tokenizer, from a folder, from the Hub, or from the bytes of a saved pipeline."""

    def __init__(self, name: str | None, layers: str | int | Sequence[int], batch_words: int) -> None:
        super().__init__(None)
        self.name, self.layers = name, layers
        self.options = Options("safetensors", None, "float32", False, batch_words, CACHE_WORDS, 1)

    @property
    def embedder(self) -> Embedder:
        if self._model is None:
            from elmo_hf import TINY

            self.read(self.name or TINY)
        embedder: Embedder = self._model
        return embedder

    def read(self, name: str | Path) -> None:
        elmo, tokenizer = load(name, ElmoModel, dtype=torch.float32)
        elmo.requires_grad_(False)
        torch.nn.Module.to(elmo, get_torch_default_device())
        self._model = Embedder(elmo, tokenizer, parse_layers(self.layers, elmo.config), self.options)

    def write(self, folder: str | Path) -> None:
        embedder = self.embedder
        with quiet():
            embedder.model.save_pretrained(folder)
            embedder.tokenizer.save_pretrained(folder)

    @property
    def width(self) -> int:
        return len(self.embedder.layers.columns) * self.embedder.width

    def __call__(self, inputs: Sequence[Doc], is_train: bool) -> Any:
        """A vector for each token of each text; several layers stand side by side."""
        sentences = [sentence for doc in inputs for sentence in words_of(doc)]
        texts = [[token.text for token in sentence] for sentence in sentences]
        embedder = self.embedder
        with torch.inference_mode(), evaluating(embedder.model):
            vectors = embedder(texts, lambda words: None)
        if vectors.ndim == 3:
            vectors = np.concatenate(list(vectors), axis=-1)
        tensors, start = [], 0
        for doc in inputs:
            places = [token.i for sentence in words_of(doc) for token in sentence]
            tensor = np.zeros((len(doc), self.width), dtype=np.float32)
            tensor[places] = vectors[start : start + len(places)]
            tensors.append(tensor)
            start += len(places)
        return tensors, no_gradient

    def finish_update(self, optimizer: Any) -> None:
        """Nothing is trained."""

    def to_device(self, device_type: str, device_id: int) -> None:
        device = "cpu" if device_type == "cpu" else f"{device_type}:{device_id}"
        torch.nn.Module.to(self.embedder.model, device)

    def copy(self) -> "ElmoShim":
        """With the same ELMo, since it does not change."""
        copied = ElmoShim(self.name, self.layers, self.options.batch_words)
        copied._model = self._model
        return copied

    def to_bytes(self) -> bytes:
        with TemporaryDirectory() as folder:
            self.write(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        content: bytes = srsly.msgpack_dumps(files)
        return content

    def from_bytes(self, data: bytes) -> "ElmoShim":
        with TemporaryDirectory() as folder:
            for name, content in srsly.msgpack_loads(data).items():
                (Path(folder) / Path(name).name).write_bytes(content)
            self.read(folder)
        return self


def words_of(doc: Doc) -> list[list[Token]]:
    """The sentences of a text, each as its words; spaCy's tokens of white space are none."""
    sentences: Iterable[Any] = doc.sents if doc.has_annotation("SENT_START") else [doc]
    return [[token for token in sentence if not token.is_space] for sentence in sentences]


def no_gradient(gradients: Any) -> list[Any]:
    return []


@registry.architectures(ARCHITECTURE)
def tok2vec(
    model: str | None = None, layers: str | int | list[int] = "average", batch_words: int = 4096
) -> Model:
    """A layer from texts to the vectors of their tokens, for `tok2vec` in the config of a component.

    Args:
        model: An ELMo's folder, or its name on the Hub. Default: elmo-tiny.
        layers: "top", "average", "all", or numbers from the bottom up; several stand side by side.
        batch_words: Words that the ELMo reads at once, padding included.
    """
    settings = {"@architectures": ARCHITECTURE, "model": model, "layers": layers, "batch_words": batch_words}
    return Model(
        "elmo",
        forward,
        init=initialize,
        attrs={"replace_listener_cfg": partial(replaced, settings)},
        dims={"nO": None},
        shims=[ElmoShim(model, layers, batch_words)],
    )


def forward(model: Model, docs: Sequence[Doc], is_train: bool) -> tuple[Any, Callable[..., Any]]:
    tensors, backward = model.shims[0](docs, is_train)
    return [model.ops.asarray2f(tensor) for tensor in tensors], backward


def initialize(model: Model, X: Any = None, Y: Any = None) -> None:
    shim: Any = model.shims[0]
    model.set_dim("nO", shim.width, force=True)


def replaced(settings: dict[str, Any], model: str | None, listener: Any) -> dict[str, Any]:
    """What `nlp.replace_listeners` writes into the config of a component that gets an ELMo of its own."""
    return dict(settings)


# ---- the component


class ElmoComponent(Tok2Vec):
    """Sets `doc.tensor`, and has the vectors and similarities of tokens, spans and texts taken from it."""

    @property
    def shim(self) -> Any:
        return self.model.shims[0]

    def predict(self, docs: Iterable[Doc]) -> Any:
        return self.model.predict(list(docs))

    def set_annotations(self, docs: Sequence[Doc], tokvecses: Any) -> None:
        super().set_annotations(docs, tokvecses)
        for doc in docs:
            doc.user_token_hooks |= {"vector": vector_of, "has_vector": has_vector, "similarity": cosine}
            for hooks in (doc.user_hooks, doc.user_span_hooks):
                hooks |= {"vector": mean_of, "has_vector": has_vectors, "similarity": cosine}

    def initialize(
        self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language | None = None
    ) -> None:
        """Read the ELMo, and refuse listeners that expect vectors of another size."""
        super().initialize(get_examples, nlp=nlp)
        width = self.model.get_dim("nO")
        for name, listeners in self.listener_map.items():
            for expected in {listener.get_dim("nO") for listener in listeners} - {width}:
                raise ElmoError(
                    f"{name} listens for vectors of {expected} numbers, and those of {self.name} have "
                    f"{width}; set width = {width} in the config of {name}."
                )

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write a folder that `ElmoModel.from_pretrained` reads, too."""
        if "model" not in exclude:
            self.shim.write(path)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "ElmoComponent":
        if "model" not in exclude:
            self.shim.read(path)
            initialize(self.model)
        return self


@Language.factory(
    "elmo",
    assigns=["doc.tensor"],
    default_config={"model": None, "layers": "average", "batch_words": 4096},
)
def make_elmo(
    nlp: Language,
    name: str,
    model: str | None,
    layers: str | int | list[int],
    batch_words: int,
) -> ElmoComponent:
    """The component for `nlp.add_pipe("elmo", config={...})`; the arguments are those of `tok2vec`."""
    return ElmoComponent(nlp.vocab, tok2vec(model, layers, batch_words), name)


# ---- what spaCy calls for `.vector`, `.has_vector` and `.similarity()`


def vector_of(token: Token) -> Any:
    return token.doc.tensor[token.i]


def has_vector(token: Token) -> bool:
    return not token.is_space


def mean_of(item: Doc | Span) -> Any:
    """The mean over the words."""
    tensor = item.doc.tensor
    places = [token.i for token in item if not token.is_space]
    return tensor[places].mean(axis=0) if places else get_array_module(tensor).zeros_like(tensor[:1].sum(0))


def has_vectors(item: Doc | Span) -> bool:
    return any(not token.is_space for token in item)


def cosine(item: Any, other: Any) -> float:
    """Without spaCy's rule that two occurrences of a word are equal."""
    first, second = item.vector, other.vector
    if first.shape != second.shape:
        raise ElmoError(
            f"a vector of {len(first)} numbers cannot be compared with one of {len(second)}; compare with "
            "what the same pipeline has read."
        )
    norms = float((first @ first) ** 0.5 * (second @ second) ** 0.5)
    return float(first @ second) / norms if norms else 0.0
