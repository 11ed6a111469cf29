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
import json
import logging
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from elmo_hf.corpus.pieces import parse_shard, piece_of
from elmo_hf.corpus.source import Source, open_records
from elmo_hf.corpus.standard_input import as_file, is_standard_input
from elmo_hf.embedding.embedder import Embedder, Options, parse_layers
from elmo_hf.embedding.folders import Folder, open_folder
from elmo_hf.embedding.models import default_device, fingerprint, load_elmo, requested_device
from elmo_hf.embedding.rows import KeptColumns, ShardInput, row_bytes, shard_inputs, survey
from elmo_hf.embedding.shards import Header, Shard, free_name, read_shard, shard_name, write_shard
from elmo_hf.embedding.vectors import Vectors, read_index, read_vectors, write_hdf5
from elmo_hf.errors import ElmoError
from elmo_hf.files import LOCK, PARTIAL, read_json, write_json
from elmo_hf.loading import evaluating
from elmo_hf.model.modeling_elmo import ElmoPreTrainedModel
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.remote import is_address, protocol_of
from elmo_hf.threads import MAX_THREADS, using_threads

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
    column: str | None = None,
    text_column: str | None = None,
    tokens_column: str | None = None,
    split: str = "train",
    subset: str | None = None,
    keep_columns: bool = True,
    whitespace: bool = False,
    batch_words: int = 4096,
    cache_words: int = 50_000,
    shard_words: int = 32_768,
    shard: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Vectors:
    """Write the vectors of a corpus to a folder, and return them as `read_vectors(output)` does.

    Called again with the same arguments after it was stopped, it goes on where it stopped.

    >>> corpus = ["He sat on the bank.", "Why?"]  # or a file, or one of the other sources below
    >>> for words, vectors in embed(corpus, "vectors", TINY, layers="average", progress=False):
    ...     print(words[0], vectors.shape)
    He (6, 256)
    Why (2, 256)

    Args:
        source: a file of text, one sentence a line, or of JSON lines, Parquet or CSV, plain or packed (`.gz`,
            `.bz2`, `.xz`, `.zst`); a pattern, a folder or an address of such files (`s3://bucket/*.txt`,
            `hf://`, `https://` and what else fsspec knows); the name of a data set on the Hub; "-" for
            standard input, lines of text or of JSON; or an iterable of texts, lists of words or dictionaries,
            such as a `datasets` stream.
        output: the folder to write, or its address, such as `s3://bucket/vectors`.
        model: an ELMo, its folder, or its name on the Hub.
        tokenizer: the rule that splits text, and the words of a model with a word table. Default: the one in
            the model's folder.
        layers: "top", "average", "all", "mix" (the trained mix that the model stores), or numbers from the
            bottom up, such as 0 or "0,2".
        pool: "mean" or "max" over a sentence's words; an empty sentence's vector is then zero. Default: a
            vector for each word.
        format: "safetensors", "hdf5" (AllenNLP's layout), "parquet" or "npy".
        dtype: "float32" or "float16", of the numbers that are written.
        column: the column of the text, or of the lists of words. Default: "text" or "tokens".
        text_column, tokens_column: the older names of `column`; the one must hold text, the other words.
        split: the part of a folder or Hub data set.
        subset: the configuration of a Hub data set.
        keep_columns: write the other columns of the corpus, such as id and label, too, if the format is
            "parquet".
        whitespace: split text at whitespace only, whatever the tokenizer's own rule is.
        batch_words: words of a batch, padding included.
        cache_words: words whose encodings are kept for the next batches of a shard (0: none).
        shard_words: words of a file of vectors, counted at whitespace; with a sentence's length, this sets
            the memory.
        shard: "3/16" for the third of 16 pieces of the corpus, each with a folder of its own, which may be
            made on any machine in any order; which sentences are in it depends on the corpus alone. In
            Parquet, a column "shard" has its number. `read_vectors` of the folder around them reads all.
        device: such as "cpu" or "cuda". Default: a GPU if there is one.
        threads: of each process on a CPU. Default: its share of the machine's cores, unless the variable
            `OMP_NUM_THREADS` or `torch.set_num_threads` says another number.
        progress: show words a second and the time left.

    Returns:
        The sentences in the order of the input, each as `(words, vectors)`.

    Raises:
        ElmoError: an argument, the corpus, the model or the folder cannot be used. Nothing is written then.
    """
    if threads is not None and not (type(threads) is int and 1 <= threads <= MAX_THREADS):
        raise ElmoError(f"threads must be 1 to {MAX_THREADS}, but is {threads!r}.")
    options = Options(format, pool, dtype, whitespace, batch_words, cache_words, shard_words)
    if shard is not None:
        parse_shard(shard)
    if is_address(output) and protocol_of(str(output)) in ("http", "https"):
        raise ElmoError(f"{output} can be read, but not written; name a folder, or an address such as s3://.")
    folder = open_folder(output)
    if is_standard_input(source) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ElmoError("several processes cannot share standard input; write it into a file and name that.")
    with as_file(source) as data:
        corpus = open_records(data, text_column, tokens_column, column=column, split=split, subset=subset)
        if shard is not None:
            corpus = piece_of(corpus, shard)
        job, words = _open_job(corpus, folder, options, keep_columns, model, tokenizer, layers, device)
        with using_threads(threads):
            job.run(words, progress)
    return read_vectors(output)


def _open_job(
    corpus: Source,
    output: Folder,
    options: Options,
    keep_columns: bool,
    model: str | Path | ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer | None,
    layers: str | int | Sequence[int],
    device: str | None,
) -> tuple["Job", int | None]:
    """The job, from checked arguments, and the words of the corpus, if they are known before."""
    may_keep = may_keep_columns(output, options.format)
    kept = KeptColumns(corpus) if may_keep and keep_columns else None
    identity, words = survey(corpus, kept)
    check_folder(output)
    processes = _processes(device, model)
    elmo, tokenizer = load_elmo(model, tokenizer, "embed")
    chosen = parse_layers(layers, elmo.config)
    plan: dict[str, Any] = {"columns": kept.plan if kept is not None else {}} if may_keep else {}
    plan |= asdict(options) | {"layers": chosen.name, "input": identity}
    plan["model"] = fingerprint(elmo, tokenizer)
    if corpus.piece is not None:
        plan |= {"shard": str(corpus.piece), "corpus_size": corpus.piece.size}
    torch.nn.Module.to(elmo, processes.device)
    embedder = Embedder(elmo, tokenizer, chosen, options)
    return Job(output, plan, options, corpus, kept, embedder, processes), words


def may_keep_columns(folder: Folder, format: str) -> bool:
    """Whether other columns may be written. A job that 0.1.0 began goes on without them."""
    if format != "parquet" or not folder.has("plan.json"):
        return format == "parquet"
    with folder.reading("plan.json") as path:
        plan = read_json(path / "plan.json")
    return not isinstance(plan, dict) or "columns" in plan


# ---- the job: processes, shards, going on


@dataclass
class Processes:
    number: int
    count: int
    device: torch.device
    wait: Callable[[], None]


def _processes(device: str | None, model: Any) -> Processes:
    """This process among those of the job, as `accelerate launch` and `torchrun` set its environment."""
    requested = requested_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, requested or default_device(model), lambda: None)
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


def check_folder(folder: Folder) -> None:
    """Refuse a folder that is neither empty nor one of an embedding job."""
    names = folder.names()
    if "plan.json" not in names and (others := set(names) - {"plan.json" + PARTIAL, LOCK}):
        raise ElmoError(f"the output folder {folder} holds something else ({min(others)}); name another one.")


@dataclass
class Job:
    folder: Folder
    plan: dict[str, Any]
    options: Options
    corpus: Source
    kept: KeptColumns | None
    embedder: Embedder
    processes: Processes

    def run(self, words: int | None, progress: bool) -> None:
        """Make what is missing. `words`: of the corpus, if it is known."""
        with nullcontext() if self.processes.number else self.folder.locked():
            self.claim_folder()
            if self.folder.has("index.json"):
                self.check_stream()
            else:
                self._make_all(words, progress)
            if self.processes.number == 0:
                self.remove_shards_of_hdf5()
            self.processes.wait()

    def _make_all(self, words: int | None, progress: bool) -> None:
        processes, model = self.processes, self.embedder.model
        logger.info("process %d of %d on %s", processes.number, processes.count, processes.device)
        with torch.inference_mode(), evaluating(model), self.progress_bar(words, progress) as bar:
            count = self.make_shards(bar)
        processes.wait()
        if processes.number == 0:
            self.finish(count)

    @property
    def columns(self) -> list[str]:
        return self.embedder.layers.columns

    def name(self, number: int) -> str:
        return shard_name(number, self.options.format)

    def claim_folder(self) -> None:
        """Write `plan.json`, or check that the folder has the same one; the first process goes first."""
        if self.processes.number:
            self.processes.wait()
        check_folder(self.folder)
        if self.folder.has("plan.json"):
            with self.folder.reading("plan.json") as path:
                self._check_plan(read_json(path / "plan.json"))
        else:
            with self.folder.writing() as path:
                write_json(path / "plan.json", self.plan)
        if not self.processes.number:
            self.processes.wait()

    def _check_plan(self, before: Any) -> None:
        if not isinstance(before, dict):
            raise ElmoError(
                f"{self.folder.file('plan.json')} is damaged; remove the folder, or name another one."
            )
        for name, value in ({"shard": None} | self.plan).items():
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
        if self.folder.has(self.name(count)):
            raise ElmoError(
                f"{self.folder.file(self.name(count))} is beyond the input's end, which was longer before."
            )
        return count

    def _inputs(self) -> Iterator[ShardInput]:
        return shard_inputs(self.corpus, self.options.shard_words, self.kept is not None)

    def _shards(self) -> Iterator[ShardInput]:
        """The shards of the corpus; ElmoError at the end if `survey` has read another text in its files."""
        digest = hashlib.sha256()
        for shard in self._inputs():
            for record, others in shard.rows:
                digest.update(row_bytes(record, others))
            if self.kept is not None:
                self.kept.complete(shard)
            yield shard
        if self.corpus.stream is None and digest.hexdigest() != self.plan["input"]["sha256"]:
            raise ElmoError(f"{self.corpus.name} has changed while it was read; name another folder.")

    def check_stream(self) -> None:
        """Refuse another stream than that of the finished job. The plan knows only its type."""
        if self.corpus.stream is None or self.processes.number:
            return
        digests = [shard.digest for shard in self._inputs()]
        if digests != [entry["digest"] for entry in read_index(self.folder)["shards"]]:
            raise ElmoError(f"{self.folder} has the vectors of other sentences; name another folder.")

    def _is_made(self, shard: ShardInput) -> bool:
        name = self.name(shard.number)
        header = self.folder.header(name)
        if header is not None and header.digest != shard.digest:
            raise ElmoError(
                f"{self.folder.file(name)} was made from other sentences; the input has changed since."
            )
        return header is not None

    def _make(self, shard: ShardInput, bar: Any) -> None:
        sentences = [self.embedder.split(record) for record in shard.records]
        words = sum(map(len, sentences))
        scale = shard.words / max(words, 1)  # the bar's total was counted at whitespace
        vectors = self.embedder(sentences, lambda done: bar.update(done * scale))
        header = Header(shard.first, len(sentences), words, shard.digest)
        output = Shard(header, sentences, vectors, self._other_columns(shard))
        with self.folder.writing() as path:
            write_shard(path / self.name(shard.number), output, self.columns, self.options.pool is not None)

    def _other_columns(self, shard: ShardInput) -> dict[str, Any]:
        """Of Parquet; the number of the piece tells its sentences from those of the other pieces."""
        others = self.kept.arrays(shard.others) if self.kept is not None else {}
        if self.corpus.piece is None or self.options.format != "parquet":
            return others
        import pyarrow as pa

        columns = {"shard": pa.array([self.corpus.piece.number] * len(shard.rows), pa.int32())}
        for name, values in others.items():
            columns[free_name(name, columns)] = values
        return columns

    def finish(self, count: int) -> None:
        """Write the HDF5 file, if it was asked for, and `index.json`, once all shards are there."""
        headers: list[Header] = []
        for number in range(count):
            header = self.folder.header(self.name(number))
            if header is None:
                raise ElmoError(
                    f"{self.folder.file(self.name(number))} is missing; run the same command again."
                )
            headers.append(header)
        pooled = self.options.pool is not None
        if self.options.format == "hdf5":
            with self.folder.writing() as path:
                write_hdf5(path, (self._read(number) for number in range(count)), pooled)
        index = {"format": self.options.format, "layers": self.plan["layers"], "columns": self.columns}
        index |= {"pool": self.options.pool, "dtype": self.options.dtype, "dim": self.embedder.width}
        index["sentences"] = sum(header.sentences for header in headers)
        index["words"] = sum(header.words for header in headers)
        index["shards"] = [asdict(header) for header in headers]
        if self.corpus.piece is not None:
            index["shard"] = asdict(self.corpus.piece) | {"job": self._digest}
        with self.folder.writing() as path:
            write_json(path / "index.json", index)

    @property
    def _digest(self) -> str:
        """Equal for all shards of a corpus that are made with the same arguments."""
        own = ("shard", "input", "columns")
        plan = {name: value for name, value in self.plan.items() if name not in own}
        return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()

    def _read(self, number: int) -> Shard:
        name = self.name(number)
        with self.folder.reading(name) as path:
            return read_shard(path / name, self.columns, self.options.pool is not None)

    def remove_shards_of_hdf5(self) -> None:
        if self.options.format == "hdf5":
            for name in self.folder.names():
                if fnmatch(name, "vectors-*.safetensors"):
                    self.folder.remove(name)


def _short(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
