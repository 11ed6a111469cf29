"""A table of words and their vectors, each of the word alone, for programs that know no context.

    elmo-hf export my-elmo/ vectors.txt --static words.txt      # GloVe's text
    elmo-hf export my-elmo/ my-static/ --static vocabulary      # a model2vec folder, and vectors.txt in it
    export_static("my-elmo", "my-static", "words.txt", layers="0")

GloVe's text has a word and its numbers a line. The folder holds what `model2vec.StaticModel` and
`SentenceTransformer` load: the table, a tokenizer that splits text as the model's does, and a config. Words
that the table lacks have no vector there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tqdm.auto import tqdm

from elmo_hf.embedding.embedder import Embedder, Layers, Options, parse_layers
from elmo_hf.errors import ElmoError, quoted, reason_of
from elmo_hf.files import new_folder, whole_file
from elmo_hf.loading import evaluating, load
from elmo_hf.model.modeling_elmo import ElmoModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.model.words_elmo import SPLITTERS, read_vocabulary

VOCABULARY = "vocabulary"  # in place of a file: the model's own words
TEXT = "vectors.txt"
BATCH_WORDS = 1024
# What the `tokenizers` library cannot look behind, and what stands for it there.
LOOK_BEHIND = r"(?<=\p{L}\p{M}*\.?)", r"(?<=\p{L}|\p{M}|\p{L}\.|\p{M}\.)"

README = """# Static vectors of {title}

{words:,} words, each with {width} numbers: {meaning} of the ELMo, which has read the word alone.

```python
from model2vec import StaticModel

model = StaticModel.from_pretrained(".")
print(model.encode(["He sat on the bank."]).shape)  # (1, {width}), the mean of the words' vectors
```

`SentenceTransformer(".")` loads the folder, too. `{text}` has the same vectors as GloVe's text:

```python
from gensim.models import KeyedVectors

vectors = KeyedVectors.load_word2vec_format("{text}", no_header=True)
print(vectors.most_similar(vectors.index_to_key[0], topn=3))
```
"""


@dataclass(frozen=True)
class StaticExport:
    """What was written.

    Attributes:
        model: The model's name.
        words: The number of words in the table.
        width: The number of numbers of each.
        repeated: Lines of the list that repeat a word, or name a special one, and were left out.
        unknown: Words outside the vocabulary of a model that reads whole words; they have one vector.
    """

    model: str
    words: int
    width: int
    repeated: int
    unknown: int

    def __str__(self) -> str:
        notes = [f"{self.words:,} words with {self.width} numbers each, by {self.model}."]
        if self.repeated:
            notes.append(f"Left out {self.repeated:,} lines with a repeated or special word.")
        if self.unknown:
            notes.append(f"{self.unknown:,} words are not in the model's vocabulary and have one vector.")
        return " ".join(notes)


def export_static(
    model: str | Path,
    output: str | Path,
    words: str | Path | Sequence[str],
    *,
    layers: str | int | list[int] = "top",
    progress: bool = True,
) -> StaticExport:
    """Write the vectors of words, whole or not at all.

    Args:
        model: A folder, or a name on the Hub. The ELMo reads each word as a sentence of its own.
        output: What to write: GloVe's text if the name ends in .txt, otherwise a model2vec folder with that
            text in it. It must not exist.
        words: A UTF-8 file with one word a line, "vocabulary" for the model's own, or a list.
        layers: "top", "average", "all", or numbers from the bottom up; several stand side by side.
        progress: Show words a second and the time left.

    Raises:
        ElmoError: The model, the words or the output cannot be used. Nothing is written then.
    """
    output = Path(output)
    if output.suffix == ".txt":
        if output.exists():
            raise ElmoError(f"{output} exists already; name another file, or delete it.")
        if not output.absolute().parent.is_dir():
            raise ElmoError(f"there is no folder {output.parent} to write {output.name} in.")
        with whole_file(output) as path:
            table = Table(model, words, layers, progress)
            table.write_text(path)
    else:
        with new_folder(output) as folder:
            table = Table(model, words, layers, progress)
            table.write_text(folder / TEXT)
            table.write_model2vec(folder)
    return table.report


class Table:
    """Words and their vectors."""

    def __init__(
        self,
        model: str | Path,
        words: str | Path | Sequence[str],
        layers: str | int | list[int],
        progress: bool,
    ) -> None:
        lines = read_words(words)
        elmo, self.tokenizer = load(model, ElmoModel, dtype=torch.float32)
        self.layers, self.progress = parse_layers(layers, elmo.config), progress
        self.title = Path(model).resolve().name if Path(model).is_dir() else str(model)
        if lines is None:
            lines = [(f"{self.title}'s vocabulary", word) for word in own_words(self.tokenizer, self.title)]
        self.words = distinct(lines, set(self.tokenizer.all_special_tokens))
        self.vectors = vectors_of(elmo, self.tokenizer, self.words, self.layers, progress)
        unknown = 0
        if elmo.config.token_encoder == "words":
            known = self.tokenizer.get_vocab()
            unknown = sum(word not in known for word in self.words)
        count, width = self.vectors.shape
        self.report = StaticExport(self.title, count, width, len(lines) - count, unknown)

    def write_text(self, path: Path) -> None:
        """A word and its numbers a line; nine digits give back the same float32."""
        form = " ".join(["%.9g"] * self.vectors.shape[1])
        with path.open("w", encoding="utf-8", newline="\n") as file:
            rows = zip(self.words, self.vectors, strict=True)
            for word, vector in tqdm(rows, "writing", len(self.words), disable=not self.progress):
                file.write(f"{word} {form % tuple(vector.tolist())}\n")

    def write_model2vec(self, folder: Path) -> None:
        """The files that `StaticModel.save_pretrained` writes, with the unknown word in the first row."""
        rows = np.concatenate([np.zeros_like(self.vectors[:1]), self.vectors])
        save_file({"embeddings": rows}, folder / "model.safetensors")
        word_level_tokenizer(self.words, self.tokenizer).save(str(folder / "tokenizer.json"))
        config = {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "tokenizer_name": self.title,
            "hidden_dim": self.vectors.shape[1],
            "embedding_dtype": "float32",
            "normalize": False,
        }
        static = "sentence_transformers.sentence_transformer.modules.StaticEmbedding"
        modules = [{"idx": 0, "name": "0", "path": ".", "type": static}]
        for name, content in (("config.json", config), ("modules.json", modules)):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        readme = README.format(
            title=self.title,
            words=len(self.words),
            width=self.vectors.shape[1],
            meaning=meaning_of(self.layers),
            text=TEXT,
        )
        (folder / "README.md").write_text(readme, encoding="utf-8")


def meaning_of(layers: Layers) -> str:
    if layers.is_average:
        return "the average of the layers"
    if layers.num_mixes:
        return "the trained mix of the layers"
    numbers = ", ".join(map(str, layers.numbers))
    return f"layer {numbers}" if len(layers.numbers) == 1 else f"layers {numbers} side by side"


# ---- words


def read_words(words: str | Path | Sequence[str]) -> list[tuple[str, str]] | None:
    """The words of a file or list, each with its place for messages; None for the model's vocabulary."""
    if not isinstance(words, str | Path):
        return [(f"word {number}", word) for number, word in enumerate(words, start=1)]
    if str(words) == VOCABULARY:
        return None
    try:
        lines = read_vocabulary(words)
    except OSError as error:
        raise ElmoError(
            f"the list of words {words} cannot be read ({reason_of(error)}); give a UTF-8 file with one word "
            f"a line, or {VOCABULARY} for the model's own words."
        ) from None
    except ValueError as error:
        raise ElmoError(str(error).replace("the vocabulary", "the list of words")) from None
    lines[0] = lines[0].removeprefix("\ufeff")  # Windows editors write one
    return [(f"{words}, line {number}", word) for number, word in enumerate(lines, start=1) if word]


def own_words(tokenizer: ElmoTokenizer, title: str) -> list[str]:
    special = set(tokenizer.all_special_tokens)
    words = [word for word in tokenizer.get_vocab() if word not in special and word.split() == [word]]
    if not words:
        raise ElmoError(f"{title} has no vocabulary; give --static a file with one word a line.")
    return words


def distinct(lines: list[tuple[str, str]], special: set[str]) -> list[str]:
    """Each word once. GloVe's text holds no white space within a word."""
    words: dict[str, None] = {}
    for place, word in lines:
        if not isinstance(word, str) or word.split() != [word]:
            raise ElmoError(f"{place}: {quoted(repr(word))} is not one word; give one word a line.")
        if word not in special:
            words[word] = None
    if not words:
        raise ElmoError("the list has no words; give a file with one word a line.")
    return list(words)


# ---- vectors


def vectors_of(
    model: ElmoModel, tokenizer: ElmoTokenizer, words: list[str], layers: Layers, progress: bool
) -> np.ndarray:
    """(words, dim)"""
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    embedder = Embedder(
        model, tokenizer, layers, Options("safetensors", None, "float32", False, BATCH_WORDS, 0, 1)
    )
    bar = tqdm(desc="reading", total=len(words), unit=" words", disable=not progress)
    with bar, torch.inference_mode(), evaluating(model):
        vectors = embedder([[word] for word in words], bar.update)
    return vectors if vectors.ndim == 2 else np.concatenate(list(vectors), axis=-1)


def word_level_tokenizer(words: list[str], tokenizer: ElmoTokenizer) -> Tokenizer:
    """Splits text as `tokenizer` does; a word's id is its row, and other words are unknown."""
    unknown = str(tokenizer.unk_token)
    ids = {word: number for number, word in enumerate([unknown, *words])}
    pattern = SPLITTERS[tokenizer.word_splitter].pattern.replace(*LOOK_BEHIND)
    split = Tokenizer(WordLevel(ids, unk_token=unknown))
    split.pre_tokenizer = Split(Regex(f"(?x){pattern}"), behavior="removed", invert=True)
    return split
