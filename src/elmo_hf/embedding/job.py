"""A corpus in, vectors out.

    embed("corpus.txt", "vectors/", "my-elmo", layers="average")
    elmo-hf embed corpus.txt vectors/ --model my-elmo --layers average
    accelerate launch --num_processes 4 -m elmo_hf.cli embed corpus.txt vectors/ --model my-elmo

The corpus is read a shard at a time: some thousand sentences, cut by their number of words, so that the cuts
depend on the corpus alone. Inside a shard, sentences of like length share a batch, every word is encoded from
its characters once, and the vectors are put back in the order of the input. A shard's bytes depend on the
shard alone: process r of n makes every n-th shard, a job that was killed goes on with the first shard that is
missing, and either way the files are those of a single undisturbed run on such a machine.

Memory does not grow with the corpus, only with the longest sentence: the backward half of a vector has read
the sentence from its end, so that a sentence cannot be cut, and one of 100,000 words is a batch of its own.
"""

import hashlib
import inspect
import json
import logging
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from elmo_hf.corpus.sentences import Record, grouped, word_count
from elmo_hf.corpus.source import Source, open_records
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.vectors import (
    Header,
    Shard,
    Vectors,
    read_header,
    read_index,
    read_shard,
    read_vectors,
    shard_path,
    write_hdf5,
    write_shard,
)
from elmo_hf.errors import ElmoError
from elmo_hf.files import LOCK, PARTIAL, locked_folder, read_json, write_json
from elmo_hf.loading import evaluating, load, load_model, needs_tokenizer
from elmo_hf.model.configuration_elmo import NEWER_OPTIONS, ElmoConfig
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
    """Write the vectors of a corpus to a folder, and return them as `read_vectors(output)` does.

    Called again with the same arguments after it was stopped, it goes on where it stopped::

        for words, vectors in embed("corpus.txt", "vectors/", "my-elmo", layers="average"):
            ...  # vectors: (words, dim)

    Args:
        source: a file of text, one sentence a line, or of JSON lines, Parquet or CSV, plain or packed (`.gz`,
            `.bz2`, `.xz`, `.zst`); a pattern, a folder or an address of such files; or an iterable of texts,
            lists of words or dictionaries, such as a `datasets` stream.
        output: the folder to write.
        model: an ELMo, its folder, or its name on the Hub.
        tokenizer: the rule that splits text, and the words of a model with a word table. Default: the one in
            the model's folder.
        layers: "top", "average", "all", or numbers from the bottom up: 0, "0,2", [0, 2].
        pool: "mean" or "max" over a sentence's words, or None. An empty sentence's vector is then zero.
        format: "safetensors", "hdf5" (AllenNLP's layout) or "parquet".
        dtype: "float32" or "float16", of the numbers that are written.
        text_column, tokens_column: the column of the text, or of the lists of words. Default: "text" or
            "tokens".
        whitespace: split text at whitespace only, whatever the tokenizer's own rule is.
        batch_words: words of a batch, padding included.
        cache_words: words whose encodings are kept for the next batches of a shard (0: none).
        shard_words: words of a shard, counted at whitespace; with a sentence's length, this sets the memory.
        device: such as "cpu" or "cuda". Default: a GPU if there is one.
        progress: show words a second and the time left.

    Returns:
        The sentences in the order of the input, each as `(words, vectors)`.

    Raises:
        ElmoError: an argument, the corpus, the model or the folder cannot be used. Nothing is written then.
    """
    options = Options(format, pool, dtype, whitespace, batch_words, cache_words, shard_words)
    corpus = open_records(source, text_column, tokens_column)
    identity, words = survey(corpus)
    check_folder(Path(output))
    processes = _processes(device, model)
    elmo, tokenizer = _load(model, tokenizer)
    chosen = parse_layers(layers, elmo.config)
    plan = asdict(options) | {"layers": chosen.name, "input": identity}
    plan["model"] = fingerprint(elmo, tokenizer)
    torch.nn.Module.to(elmo, processes.device)
    embedder = Embedder(elmo, tokenizer, chosen, options)
    job = Job(Path(output), plan, options, corpus, embedder, processes)
    with nullcontext() if processes.number else locked_folder(job.folder):
        job.claim_folder()
        if (job.folder / "index.json").exists():
            job.check_stream()
        else:
            logger.info("process %d of %d on %s", processes.number, processes.count, processes.device)
            with torch.inference_mode(), evaluating(elmo), job.progress_bar(words, progress) as bar:
                count = job.make_shards(bar)
            processes.wait()
            if processes.number == 0:
                job.finish(count)
        if processes.number == 0:
            job.remove_shards_of_hdf5()
        processes.wait()
    return read_vectors(output)


# ---- the corpus


@dataclass
class ShardInput:
    """The records of one shard. `words` is counted at whitespace."""

    number: int
    first: int  # number of the first sentence
    records: list[Record]
    words: int
    digest: str


def survey(corpus: Source) -> tuple[dict[str, Any], int | None]:
    """Read and check every record once, which takes little time beside the model.

    Returns:
        What identifies the corpus in `plan.json`, and its words; of a stream, only the name of its type.
    """
    if corpus.stream is not None:
        return {"stream": corpus.stream}, None
    digest, sentences, words, has_words = hashlib.sha256(), 0, 0, False
    for record in corpus.records():
        digest.update(_bytes(record))
        sentences, words = sentences + 1, words + word_count(record)
        has_words = has_words or bool("".join(record).strip())
    if not has_words:
        raise ElmoError(f"{corpus.name} is empty; there is no word in it.")
    return {"sentences": sentences, "sha256": digest.hexdigest()}, words


def shard_inputs(corpus: Source, shard_words: int) -> Iterator[ShardInput]:
    first = 0
    for number, records in enumerate(grouped(corpus.records(), shard_words)):
        digest = hashlib.sha256(b"".join(map(_bytes, records))).hexdigest()
        yield ShardInput(number, first, records, sum(map(word_count, records)), digest)
        first += len(records)


def _bytes(record: Record) -> bytes:
    text = record if isinstance(record, str) else "\x1f".join(record)
    return text.encode("utf-8") + b"\n"


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
        raise ElmoError(f"embed needs an ELMo, its folder or its name, but got {type(model).__name__}.")
    if tokenizer is None and needs_tokenizer(elmo.config):
        raise ElmoError(
            "a model with a word table, or letters of its own, needs its tokenizer: embed(..., "
            "tokenizer=tokenizer)."
        )
    length = elmo.config.max_characters_per_token
    return elmo, tokenizer or ElmoTokenizer(max_characters_per_token=length)


def fingerprint(model: ElmoModel, tokenizer: ElmoTokenizer) -> str:
    """A digest of everything that a word's vector depends on, except the machine."""
    settings = {name: getattr(model.config, name) for name in inspect.get_annotations(ElmoConfig)}
    # Without options at the value that an earlier version implied, so that its jobs go on.
    settings = {name: value for name, value in settings.items() if NEWER_OPTIONS.get(name, ()) != value}
    rules = [tokenizer.word_splitter, tokenizer.all_special_tokens, tokenizer.max_characters_per_token]
    if model.config.token_encoder == "words" or tokenizer.word_column:
        rules.append(tokenizer.get_vocab())
    if tokenizer.cut_words:
        rules.append("cut_words")
    if tokenizer.lexicon is not None:
        rules.append(tokenizer.lexicon.content)
    digest = hashlib.sha256(json.dumps([settings, rules], sort_keys=True).encode("utf-8"))
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


# ---- the job: processes, shards, going on


@dataclass
class Processes:
    number: int
    count: int
    device: torch.device
    wait: Callable[[], None]


def _processes(device: str | None, model: Any) -> Processes:
    """This process among those of the job, as `accelerate launch` and `torchrun` set its environment."""
    try:
        requested = torch.device(device) if device is not None else None
    except RuntimeError:
        raise ElmoError(f"there is no device {device!r}; say cpu, cuda or cuda:1, for example.") from None
    if requested is not None and requested.type == "cuda" and not torch.cuda.is_available():
        raise ElmoError(f"the device is {device}, but torch finds no GPU here.")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        is_model = isinstance(model, ElmoPreTrainedModel)
        default = model.device if is_model else torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return Processes(0, 1, requested or default, lambda: None)
    from accelerate import PartialState

    # The others wait while one makes its last shard, or the HDF5 file.
    state = PartialState(cpu=requested is not None and requested.type == "cpu", timeout=timedelta(days=30))
    own = requested
    if own is None or own == torch.device(state.device.type):  # "cuda" is this process's own GPU
        own = state.device

    def wait() -> None:
        try:
            state.wait_for_everyone()
        except RuntimeError:  # the connection is closed
            raise ElmoError("another process of this job has ended; its message says why.") from None

    return Processes(state.process_index, state.num_processes, own, wait)


def check_folder(folder: Path) -> None:
    """Refuse a folder that is neither empty nor one of an embedding job."""
    if folder.exists() and not folder.is_dir():
        raise ElmoError(f"the output {folder} is a file; name a folder.")
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if "plan.json" not in names and (others := set(names) - {"plan.json" + PARTIAL, LOCK}):
        raise ElmoError(f"the output folder {folder} holds something else ({min(others)}); name another one.")


@dataclass
class Job:
    folder: Path
    plan: dict[str, Any]
    options: Options
    corpus: Source
    embedder: Embedder
    processes: Processes

    @property
    def columns(self) -> list[str]:
        return self.embedder.layers.columns

    def path(self, number: int) -> Path:
        return shard_path(self.folder, number, self.options.format)

    def claim_folder(self) -> None:
        """Write `plan.json`, or check that the folder has the same one; the first process goes first."""
        if self.processes.number:
            self.processes.wait()
        check_folder(self.folder)
        path = self.folder / "plan.json"
        if path.exists():
            self._check_plan(read_json(path))
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.plan)
        if not self.processes.number:
            self.processes.wait()

    def _check_plan(self, before: Any) -> None:
        if not isinstance(before, dict):
            raise ElmoError(
                f"{self.folder / 'plan.json'} is damaged; remove the folder, or name another one."
            )
        for name, value in self.plan.items():
            if before.get(name) != value:
                raise ElmoError(
                    f"{self.folder} was begun with another {name} ({_short(before.get(name))}, now "
                    f"{_short(value)}); go on with the same, or name another folder."
                )

    def progress_bar(self, words: int | None, progress: bool) -> Any:
        is_hidden = not progress or self.processes.number > 0
        return tqdm(total=words, unit=" words", unit_scale=True, disable=is_hidden)

    def make_shards(self, bar: Any) -> int:
        """Make this process's share of the shards; returns the number of all shards."""
        count = made = 0
        for shard in self._shards():
            count += 1
            is_ours = shard.number % self.processes.count == self.processes.number
            if is_ours and not self._is_made(shard):
                self._make(shard, bar)
                made += 1
            elif is_ours and not bar.disable:  # of an earlier run, so it does not count in this run's speed
                bar.initial += shard.words
                bar.n += shard.words
            else:
                bar.update(shard.words)
        logger.info("process %d made %d of %d shards", self.processes.number, made, count)
        if self.path(count).exists():
            raise ElmoError(f"{self.path(count)} is beyond the input's end, which was longer before.")
        return count

    def _shards(self) -> Iterator[ShardInput]:
        """The shards of the corpus; ElmoError at the end if `survey` has read another text in its files."""
        digest = hashlib.sha256()
        for shard in shard_inputs(self.corpus, self.options.shard_words):
            for record in shard.records:
                digest.update(_bytes(record))
            yield shard
        if self.corpus.stream is None and digest.hexdigest() != self.plan["input"]["sha256"]:
            raise ElmoError(f"{self.corpus.name} has changed while it was read; name another folder.")

    def check_stream(self) -> None:
        """Refuse another stream than that of the finished job. The plan knows only its type."""
        if self.corpus.stream is None or self.processes.number:
            return
        digests = [shard.digest for shard in shard_inputs(self.corpus, self.options.shard_words)]
        if digests != [shard["digest"] for shard in read_index(self.folder)["shards"]]:
            raise ElmoError(f"{self.folder} has the vectors of other sentences; name another folder.")

    def _is_made(self, shard: ShardInput) -> bool:
        path = self.path(shard.number)
        header = read_header(path)
        if header is not None and header.digest != shard.digest:
            raise ElmoError(f"{path} was made from other sentences; the input has changed since.")
        return header is not None

    def _make(self, shard: ShardInput, bar: Any) -> None:
        sentences = [self.embedder.split(record) for record in shard.records]
        words = sum(map(len, sentences))
        scale = shard.words / max(words, 1)  # the bar's total was counted at whitespace
        vectors = self.embedder(sentences, lambda done: bar.update(done * scale))
        header = Header(shard.first, len(sentences), words, shard.digest)
        output = Shard(header, sentences, vectors)
        write_shard(self.path(shard.number), output, self.columns, self.options.pool is not None)

    def finish(self, count: int) -> None:
        """Write the HDF5 file, if it was asked for, and `index.json`, once all shards are there."""
        headers: list[Header] = []
        for number in range(count):
            header = read_header(self.path(number))
            if header is None:
                raise ElmoError(f"{self.path(number)} is missing; run the same command again.")
            headers.append(header)
        pooled = self.options.pool is not None
        if self.options.format == "hdf5":
            shards = (read_shard(self.path(number), self.columns, pooled) for number in range(count))
            write_hdf5(self.folder, shards, pooled)
        index = {"format": self.options.format, "layers": self.plan["layers"], "columns": self.columns}
        index |= {"pool": self.options.pool, "dtype": self.options.dtype, "dim": self.embedder.width}
        index["sentences"] = sum(header.sentences for header in headers)
        index["words"] = sum(header.words for header in headers)
        index["shards"] = [asdict(header) for header in headers]
        write_json(self.folder / "index.json", index)

    def remove_shards_of_hdf5(self) -> None:
        if self.options.format == "hdf5":
            for path in self.folder.glob("vectors-*.safetensors"):
                path.unlink()


def _short(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
