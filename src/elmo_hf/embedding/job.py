"""A corpus in, vectors out.

    embed("corpus.txt", "vectors/", "my-elmo", layers="average")
    elmo-hf embed corpus.txt vectors/ --model my-elmo --layers average
    accelerate launch --num_processes 4 -m elmo_hf.cli embed corpus.txt vectors/ --model my-elmo

The corpus is read a shard at a time (some thousand sentences, cut by their words, so that the cuts depend
on the corpus alone). Inside a shard, sentences of like length share a batch, every word is encoded from its
letters once, and the vectors are put back in the order of the input. What a shard's bytes depend on is the
shard: process r of n makes every n-th one, a job that was killed goes on with the first one that is missing,
and either way the files are those of a single undisturbed run on such a machine.

Memory does not grow with the corpus, only with the longest sentence: the backward half of a vector has read
the sentence from its end, so that a sentence cannot be cut, and one of 100,000 words is a batch of its own.
"""

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from elmo_hf.corpus.sentences import Corpus, Piece
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.vectors import (
    Header,
    Shard,
    Vectors,
    read_header,
    read_shard,
    read_vectors,
    shard_path,
    write_hdf5,
    write_shard,
)
from elmo_hf.files import PARTIAL, write_json
from elmo_hf.loading import evaluating, load, load_model
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

logger = logging.getLogger(__name__)


def embed(
    source: str | Path | Iterable[Any],
    output: str | Path,
    model: str | Path | ElmoPreTrainedModel,
    *,
    tokenizer: ElmoTokenizer | None = None,
    layers: str | int | Sequence[int] = "top",
    pool: str | None = None,
    format: str = "safetensors",
    dtype: str = "float32",
    text_column: str | None = None,
    tokens_column: str | None = None,
    whitespace: bool = False,
    batch_words: int = 4096,
    cache_words: int = 50_000,
    shard_words: int = 32_768,
    device: str | None = None,
    progress: bool = True,
) -> Vectors:
    """Writes the vectors of a corpus to a folder, and returns them as `read_vectors(output)` does.

    Called again with the same arguments after it was stopped, it goes on where it stopped::

        for words, vectors in embed("corpus.txt", "vectors/", "my-elmo", layers="average"):
            ...  # vectors: (words, dim)

    Args:
        source: a file of text, one sentence a line, of JSON lines or Parquet (`.txt`, `.jsonl`, `.parquet`;
            the former two also `.gz`, `.bz2` and `.xz`), or anything that gives texts, lists of words or
            dictionaries when it is iterated, such as a `datasets` stream.
        output: the folder to write.
        model: an ELMo, its folder, or its name on the Hub.
        layers: "top", "average", "all", or numbers from the bottom up: 0, "0,2", [0, 2].
        pool: "mean" or "max" over a sentence's words, or None. An empty sentence's is zero.
        format: "safetensors", "hdf5" (AllenNLP's layout) or "parquet".
        dtype: "float32" or "float16", of the numbers that are written.
        text_column, tokens_column: where a record has its text, or its words. Left out: "text" or "tokens".
        whitespace: split text at whitespace only, whatever the tokenizer's own rule is.
        batch_words: words of a batch, with its padding.
        cache_words: words whose encodings are kept for the next batches of a shard (0: none).
        shard_words: words of a shard, counted at whitespace; with a sentence's length, this sets the memory.
        device: such as "cpu" or "cuda"; left out, a GPU if there is one.
    """
    options = Options(format, pool, dtype, whitespace, batch_words, cache_words, shard_words)
    corpus = Corpus(source, text_column, tokens_column)
    survey = corpus.survey()
    check_folder(Path(output))
    processes = _processes(device, model)
    elmo, tokenizer = _load(model, tokenizer)
    chosen = parse_layers(layers, elmo.config)
    plan = asdict(options) | {"layers": chosen.name, "input": survey.identity}
    plan["model"] = fingerprint(elmo, tokenizer)
    torch.nn.Module.to(elmo, processes.device)
    embedder = Embedder(elmo, tokenizer, chosen, options)
    job = Job(Path(output), plan, options, corpus, embedder, processes)
    job.claim()
    if not (job.folder / "index.json").exists():
        logger.info("process %d of %d on %s", processes.number, processes.count, processes.device)
        with torch.inference_mode(), evaluating(elmo), job.bar(survey.words, progress) as bar:
            count = job.make_shards(bar)
        processes.wait()
        if processes.number == 0:
            job.finish(count)
    if processes.number == 0:
        job.tidy()
    processes.wait()
    return read_vectors(output)


# ---- the model


def _load(
    model: str | Path | ElmoPreTrainedModel, tokenizer: ElmoTokenizer | None
) -> tuple[ElmoModel, ElmoTokenizer]:
    if isinstance(model, str | Path):
        if tokenizer is None:
            return load(model, ElmoModel)
        return load_model(model, ElmoModel)[0], tokenizer
    elmo = model.base_model
    if not isinstance(elmo, ElmoModel):
        raise ValueError(f"embed needs an ELMo, its folder or its name, but got {type(model).__name__}.")
    if tokenizer is None and elmo.config.token_encoder == "words":
        raise ValueError("a model with a word table needs its tokenizer: embed(..., tokenizer=tokenizer).")
    length = elmo.config.max_characters_per_token
    return elmo, tokenizer or ElmoTokenizer(max_characters_per_token=length)


def fingerprint(model: ElmoModel, tokenizer: ElmoTokenizer) -> str:
    """Of everything that a word's vector depends on, but the machine."""
    settings = {name: getattr(model.config, name) for name in inspect.get_annotations(ElmoConfig)}
    rules = [tokenizer.word_splitter, tokenizer.all_special_tokens, tokenizer.max_characters_per_token]
    if model.config.token_encoder == "words":
        rules.append(tokenizer.get_vocab())
    digest = hashlib.sha256(json.dumps([settings, rules], sort_keys=True).encode("utf-8"))
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


# ---- the job: shards, processes, going on


@dataclass
class Processes:
    number: int
    count: int
    device: torch.device
    wait: Callable[[], None]


def _processes(device: str | None, model: Any) -> Processes:
    """Which of how many processes this one is, as `accelerate launch` and `torchrun` tell their children."""
    try:
        wanted = torch.device(device) if device is not None else None
    except RuntimeError:
        raise ValueError(f"there is no device {device!r}; say cpu, cuda or cuda:1, for example.") from None
    if wanted is not None and wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"the device is {device}, but torch finds no GPU here.")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        is_model = isinstance(model, ElmoPreTrainedModel)
        free = model.device if is_model else torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Processes(0, 1, wanted or free, lambda: None)
    try:
        from accelerate import PartialState
    except ImportError:
        raise ValueError("several processes need the package accelerate; `pip install accelerate`.") from None
    # The others wait while one makes its last shard, or the HDF5 file.
    state = PartialState(cpu=wanted is not None and wanted.type == "cpu", timeout=timedelta(days=30))
    own = state.device if wanted is None or wanted == torch.device(state.device.type) else wanted
    return Processes(state.process_index, state.num_processes, own, state.wait_for_everyone)


def check_folder(folder: Path) -> None:
    """Refuses what is not a folder of ours, or empty."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the output {folder} is a file; name a folder.")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if "plan.json" not in names and set(names) - {"plan.json" + PARTIAL}:
        raise ValueError(f"the output folder {folder} holds something else ({names[0]}); name another one.")


@dataclass
class Job:
    folder: Path
    plan: dict[str, Any]
    options: Options
    corpus: Corpus
    embedder: Embedder
    processes: Processes

    @property
    def columns(self) -> list[str]:
        return self.embedder.layers.columns

    def path(self, number: int) -> Path:
        return shard_path(self.folder, number, self.options.format)

    def claim(self) -> None:
        """Makes the folder ours, or finds that it was so for the same work; the first process goes first."""
        if self.processes.number:
            self.processes.wait()
        check_folder(self.folder)
        path = self.folder / "plan.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name in self.plan if found.get(name) != self.plan[name]]
            if other:
                raise ValueError(
                    f"{self.folder} was begun with another {other[0]} ({_short(found.get(other[0]))}, now "
                    f"{_short(self.plan[other[0]])}); go on with the same, or name another folder."
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.plan)
        if not self.processes.number:
            self.processes.wait()

    def bar(self, words: int | None, progress: bool) -> Any:
        hidden = not progress or self.processes.number > 0
        return tqdm(total=words, unit=" words", unit_scale=True, disable=hidden)

    def make_shards(self, bar: Any) -> int:
        """This process's share of the shards; returns the number of all of them."""
        count = made = 0
        for piece in self.corpus.pieces(self.options.shard_words):
            count += 1
            is_ours = piece.number % self.processes.count == self.processes.number
            if is_ours and not self._is_made(piece):
                self._make(piece, bar)
                made += 1
            elif is_ours and not bar.disable:  # made before: not to count in this run's speed
                bar.initial += piece.words
                bar.n += piece.words
            else:
                bar.update(piece.words)
        logger.info("process %d made %d of %d shards", self.processes.number, made, count)
        if self.path(count).exists():
            raise ValueError(f"{self.path(count)} is beyond the input's end, which was longer before.")
        return count

    def _is_made(self, piece: Piece) -> bool:
        path = self.path(piece.number)
        header = read_header(path)
        if header is not None and header.digest != piece.digest:
            raise ValueError(f"{path} was made from other sentences; the input has changed since.")
        return header is not None

    def _make(self, piece: Piece, bar: Any) -> None:
        sentences = [self.embedder.split(record) for record in piece.records]
        words = sum(map(len, sentences))
        scale = piece.words / max(words, 1)  # the bar counts as the survey did
        vectors = self.embedder(sentences, lambda done: bar.update(done * scale))
        header = Header(piece.first, len(sentences), words, piece.digest)
        shard = Shard(header, sentences, vectors)
        write_shard(self.path(piece.number), shard, self.columns, self.options.pool is not None)

    def finish(self, count: int) -> None:
        headers = [read_header(self.path(number)) for number in range(count)]
        if None in headers:
            raise ValueError(f"{self.path(headers.index(None))} is missing; run the same command again.")
        found = [header for header in headers if header is not None]
        pooled = self.options.pool is not None
        if self.options.format == "hdf5":
            shards = (read_shard(self.path(number), self.columns, pooled) for number in range(count))
            write_hdf5(self.folder, shards, pooled)
        index = {"format": self.options.format, "layers": self.plan["layers"], "columns": self.columns}
        index |= {"pool": self.options.pool, "dtype": self.options.dtype, "dim": self.embedder.width}
        index["sentences"] = sum(header.sentences for header in found)
        index["words"] = sum(header.words for header in found)
        index["shards"] = [asdict(header) for header in found]
        write_json(self.folder / "index.json", index)

    def tidy(self) -> None:
        """The shards that an HDF5 file was made of have done their work."""
        if self.options.format == "hdf5":
            for path in self.folder.glob("vectors-*.safetensors"):
                path.unlink()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
