"""How fast text becomes windows: words/s of all readers together, by the processor's time of one of them.

    OMP_NUM_THREADS=1 python -m benchmarks.feed
    OMP_NUM_THREADS=1 python -m benchmarks.feed news.txt --kinds words --readers 1 64

A reader is a process that reads its share of the rows of a batch, letters included, in two directions. The
readers share nothing, and so all of them together read as many times the words of one as there are of them,
if each has a processor. Kinds of text:

| kind | what it is |
|---|---|
| words | 64 files with a sentence a line, its words between blanks |
| paragraphs | 64 files of raw text, split into sentences and words |
| one file | the words in one file |
| one packed file | the same, .xz: every reader unpacks all of it |

`memory_mb` is how much the reader's process grows at most. Made-up words have the frequencies of Zipf's law.
With `results/feed.json`, the table of benchmarks/README.md is written.
"""

import argparse
import json
import lzma
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.report import PAGE, RESULTS, command, fill_page, machine, markdown_table
from benchmarks.speed.worker import peak_memory
from benchmarks.speed.workloads import made_up_sentences
from elmo_hf import ElmoTokenizer
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import SPECIALS, Vocabulary
from elmo_hf.corpus.windows import Plan, Reader, share
from elmo_hf.files import write_json

SHARDS = 64
KINDS = ("words", "paragraphs", "one file", "one packed file")
STEPS = 20
MADE_UP = "made-up text"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", type=Path, nargs="?", help="text with a sentence a line (made-up text)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--words", type=int, default=2_000_000, help="that each reader reads (2000000)")
    parser.add_argument("--sentences", type=int, default=600_000, help="of the made-up text (600000)")
    parser.add_argument("--shuffle", type=int, default=100_000, help="sentences shuffled at a time (100000)")
    parser.add_argument("--output", type=Path, default=RESULTS / "feed.json")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    content = {"command": command("feed", arguments), "machine": machine(), **measure(options)}
    write_json(options.output, content)
    if options.output == RESULTS / "feed.json":
        fill_page(PAGE, "feed", lambda _: table(content))
    print(json.dumps(content, indent=1))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        lines, words = write_corpora(Path(folder), options)
        kinds = {kind: measure_kind(Path(folder), kind, options) for kind in options.kinds}
    facts = {
        "text": options.text.name if options.text else MADE_UP,
        "sentences": lines,
        "distinct_words": words,
    }
    return facts | {"rows": options.rows, "kinds": kinds}


def write_corpora(folder: Path, options: argparse.Namespace) -> tuple[int, int]:
    if options.text:
        lines = options.text.read_text(encoding="utf-8").splitlines()
    else:
        lines = [" ".join(words) for words in made_up_sentences(options.sentences)]
    counts = Counter(word for line in lines for word in line.split() if word not in SPECIALS)
    vocabulary = [*SPECIALS, *(word for word, _ in counts.most_common(100_000))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    size = -(-len(lines) // SHARDS)
    for shard in range(SHARDS):
        of_shard = lines[shard * size : (shard + 1) * size]
        write_lines(folder / f"words-{shard:02}.txt", of_shard)
        raw = [line.replace(" .", ".").replace(" ,", ",").capitalize() for line in of_shard]
        paragraphs = [" ".join(raw[start : start + 5]) for start in range(0, len(raw), 5)]
        write_lines(folder / f"paragraphs-{shard:02}.txt", paragraphs)
    write_lines(folder / "one.txt", lines)
    (folder / "packed.txt.xz").write_bytes(lzma.compress((folder / "one.txt").read_bytes(), preset=1))
    return len(lines), len(counts)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def open_kind(folder: Path, kind: str) -> Source:
    if kind == "paragraphs":
        return Source(folder / "paragraphs-*.txt", raw=True, split_sentences=True)
    names = {"words": "words-*.txt", "one file": "one.txt", "one packed file": "packed.txt.xz"}
    return Source(folder / names[kind])


def measure_kind(folder: Path, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[int, dict[str, Any]] = {}
    for readers in options.readers:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            runs[readers] = pool.apply(read, (folder, kind, readers, options))
        runs[readers]["words_per_second_of_all"] = round(readers * runs[readers]["words_per_second"])
    fewest = runs[min(runs)]["words_per_second_of_all"] / min(runs)
    for run in runs.values():
        run["times_one_reader"] = round(run["words_per_second_of_all"] / fewest, 1)
    return {"readers": {str(readers): run for readers, run in runs.items()}}  # as JSON has it


def read(folder: Path, kind: str, readers: int, options: argparse.Namespace) -> dict[str, Any]:
    """The middle one of the readers, after it has read half as many words to fill its tables and blocks."""
    source = open_kind(folder, kind)
    tokenizer = ElmoTokenizer(folder / "vocab.txt")
    encoder = Encoder(Vocabulary.load(folder / "vocab.txt"), tokenizer=tokenizer)
    before = peak_memory()
    start = time.process_time()
    first, last = share(0, options.rows, readers // 2, readers)
    reader = Reader(
        source, encoder, Plan(options.rows, STEPS, shuffle_sentences=options.shuffle), first, last
    )
    opened = time.process_time() - start
    windows = max(1, options.words // ((last - first) * STEPS))
    for _ in islice(reader, windows // 2):
        pass
    start = time.process_time()
    words = sum(int(window.mask[0].sum()) for window in islice(reader, windows))
    seconds = time.process_time() - start
    return {
        "groups": reader.groups,
        "words": words,
        "seconds": round(seconds, 2),
        "seconds_to_open": round(opened, 2),
        "words_per_second": round(words / seconds),
        "memory_mb": peak_memory() - before,
    }


def table(content: dict[str, Any]) -> str:
    """Of a JSON: kinds of text down; readers, and the memory of one, across."""
    numbers = list(next(iter(content["kinds"].values()))["readers"])
    rows = []
    for kind, measured in content["kinds"].items():
        runs = [measured["readers"][number] for number in numbers]
        speeds = [f"{run['words_per_second_of_all']:,} ({run['times_one_reader']:,} ×)" for run in runs]
        rows.append([kind, *speeds, f"{runs[0]['memory_mb']} … {runs[-1]['memory_mb']}"])
    head = ["words/s", *(f"{number} reader{'s' if number != '1' else ''}" for number in numbers)]
    text = content.get("text", MADE_UP)
    fact = f"{content['machine']['cpu']}, {content['rows']} rows, {text}: `{content['command']}`"
    return f"{fact}\n\n{markdown_table([*head, 'memory of one, MB'], rows)}"


if __name__ == "__main__":
    main()
