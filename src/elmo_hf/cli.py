"""The `elmo-hf` command.

elmo-hf vectors "He sat on the bank." "The bank lent him money."
elmo-hf convert weights.hdf5 options.json my-elmo/
elmo-hf convert my-elmo/ back/ --to bilm
elmo-hf embed corpus.txt vectors/ --model my-elmo/ --layers average
elmo-hf vocab corpus/*.txt vocab.txt --min-count 3
elmo-hf perplexity held-out.txt --model my-elmo/
elmo-hf export my-elmo/ my-elmo-onnx/
elmo-hf plot my-run/
elmo-hf card my-elmo/
elmo-hf push my-elmo/ someone/my-elmo
elmo-hf demo --model my-elmo/
"""

import json
import logging
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elmo_hf.errors import one_sentence

if TYPE_CHECKING:
    from elmo_hf.pretraining.perplexity import Perplexity

# Each command imports for itself what it runs, so that none waits for another's h5py, matplotlib or server.

Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, or a name on the Hub.", show_default="elmo-tiny, which comes with the package"
    ),
]
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.split("\n")[0])


class Format(str, Enum):
    transformers = "transformers"
    bilm = "bilm"


@app.callback()
def main() -> None:
    """ELMo for Hugging Face Transformers."""


@app.command()
def convert(
    sources: Annotated[
        list[Path], typer.Argument(help="A folder, or files: weights HDF5, options.json, ...")
    ],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must not exist, or be empty.")],
    to: Annotated[Format, typer.Option(help="The format to write.")] = Format.transformers,
) -> None:
    """Turn a published ELMo (AllenNLP, bilm-tf) into a Transformers folder, or a folder back into HDF5.

    Files are known by their content, whatever their names: the weights, options.json, a softmax, a
    vocabulary, a table of word vectors.
    """
    with one_sentence("elmo-hf"):
        from elmo_hf.convert.bilm import convert_from_bilm, convert_to_bilm

        logging.basicConfig(format="%(message)s")
        logging.getLogger("elmo_hf").setLevel(logging.INFO)  # says which file was taken for what
        if to is Format.bilm:
            if len(sources) != 1:
                raise ValueError(f"--to bilm converts one folder, but got {len(sources)} sources.")
            convert_to_bilm(sources[0], target)
        else:
            convert_from_bilm(sources, target)
        typer.echo(f"Wrote {target}:")
        for path in sorted(target.iterdir()):
            typer.echo(f"  {path.name}  {path.stat().st_size:,} bytes")


@app.command()
def vectors(
    sentences: Annotated[list[str], typer.Argument(help="Sentences of plain text.")],
    model: Model = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="All numbers, a JSON line a word, in place of the table.")
    ] = False,
) -> None:
    """Print each word's vector in its context: the average of the layers.

    A word that occurs more than once is compared with itself.
    """
    with one_sentence("elmo-hf"):
        from elmo_hf import TINY, ElmoModel
        from elmo_hf.demo.terminal import comparisons, numbers, read
        from elmo_hf.loading import load

        words, layers = read(sentences, *load(model or TINY, ElmoModel))
        if not as_json:
            typer.echo("\n".join([*numbers(words, layers), *comparisons(words, layers)]))
            return
        for sentence, found in zip(words, layers, strict=True):
            for word, vector in zip(sentence, found.mean(dim=0).tolist(), strict=True):
                typer.echo(json.dumps({"word": word, "vector": vector}, ensure_ascii=False))


@app.command()
def embed(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Text (a sentence a line), .jsonl or .parquet; .gz, .xz.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write, or to go on with.")],
    model: Model = None,
    layers: Annotated[str, typer.Option(help="top, average, all, or numbers: 0,1,2.")] = "top",
    pool: Annotated[str | None, typer.Option(help="One vector a sentence: mean or max.")] = None,
    format: Annotated[str, typer.Option(help="safetensors, hdf5 (AllenNLP's) or parquet.")] = "safetensors",
    dtype: Annotated[str, typer.Option(help="float32 or float16, as written.")] = "float32",
    text_column: Annotated[str | None, typer.Option(help="The column of text, if not 'text'.")] = None,
    tokens_column: Annotated[str | None, typer.Option(help="The column of words, if not 'tokens'.")] = None,
    whitespace: Annotated[bool, typer.Option("--whitespace", help="Split at whitespace only.")] = False,
    batch_words: Annotated[int, typer.Option(help="Words of a batch, with its padding.")] = 4096,
    cache_words: Annotated[int, typer.Option(help="Word encodings kept across batches; 0: none.")] = 50_000,
    shard_words: Annotated[int, typer.Option(help="Words of a file, held in memory.")] = 32_768,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU if there is one.")] = None,
    progress: Annotated[bool, typer.Option(help="Show words a second and the time left.")] = True,
) -> None:
    """Write the vectors of a corpus. The same command again goes on where a killed one stopped.

    `accelerate launch -m elmo_hf.cli embed ...` shares the work out to several processes.
    """
    with one_sentence("elmo-hf"):
        from transformers.utils import logging as transformers_logging

        from elmo_hf import TINY
        from elmo_hf import embed as write_vectors

        logging.basicConfig(format="%(message)s")
        logging.getLogger("elmo_hf").setLevel(logging.INFO)  # says which of how many processes this is
        transformers_logging.disable_progress_bar()
        vectors = write_vectors(
            source,
            output,
            model or TINY,
            layers=layers,
            pool=pool,
            format=format,
            dtype=dtype,
            text_column=text_column,
            tokens_column=tokens_column,
            whitespace=whitespace,
            batch_words=batch_words,
            cache_words=cache_words,
            shard_words=shard_words,
            device=device,
            progress=progress,
        )
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{output}: the vectors of {len(vectors):,} sentences.")


@app.command()
def vocab(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files (text, .jsonl, .parquet, .csv; .gz, .xz, .zst), patterns, a folder, a Hub data set.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write: vocab.txt.")],
    min_count: Annotated[int, typer.Option(help="Rarer words are <UNK>.")] = 1,
    max_words: Annotated[int | None, typer.Option(help="Most words, besides the three special ones.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Split words by rule, not at blanks.")] = False,
    split_sentences: Annotated[
        bool, typer.Option("--split-sentences", help="A line is a paragraph, not one sentence.")
    ] = False,
    column: Annotated[str | None, typer.Option(help="Of text or words, if not 'text' or 'tokens'.")] = None,
    split: Annotated[str, typer.Option(help="The part of a folder or Hub data set.")] = "train",
    config: Annotated[str | None, typer.Option(help="The configuration of a Hub data set.")] = None,
    progress: Annotated[bool, typer.Option(help="Show words a second.")] = True,
) -> None:
    """Count the words of a corpus, and write a language model's vocabulary (and vocab.counts.tsv beside it).

    The words must be split as in training: say --raw and --split-sentences here if you do there.
    """
    with one_sentence("elmo-hf"):
        from tqdm.auto import tqdm

        from elmo_hf.corpus.source import Source
        from elmo_hf.corpus.vocabulary import check_options, count_words, counts_path, write_vocabulary

        check_options(output, min_count, max_words)
        source = Source(
            data[0] if len(data) == 1 else data,
            column=column,
            split=split,
            config=config,
            raw=raw,
            split_sentences=split_sentences,
        )
        with tqdm(unit=" words", unit_scale=True, disable=not progress) as bar:
            found = count_words(source, progress=bar.update)
        vocabulary = write_vocabulary(output, found, min_count, max_words)
        typer.echo(f"{found.sentences:,} sentences, {found.tokens:,} words, {found.types:,} different ones.")
        if found.forgotten:
            typer.echo(
                f"There were too many different words for memory: {found.forgotten:,} occurrences of rare "
                "ones were dropped on the way, so that the counts of rare words are too low."
            )
        unknown = vocabulary.counts[vocabulary.unknown_id] if vocabulary.counts else 0
        typer.echo(
            f"{output}: {len(vocabulary):,} words. {1 - unknown / found.tokens:.2%} of the text is in it, "
            f"{unknown / found.tokens:.2%} is <UNK>.\n{counts_path(output)}: how often each word occurs."
        )


class States(str, Enum):
    zero = "zero"
    warm = "warm"
    carried = "carried"


@app.command()
def perplexity(
    text: Annotated[Path, typer.Argument(help="Text (a sentence a line), .jsonl or .parquet; .gz, .xz.")],
    model: Model = None,
    states: Annotated[
        States,
        typer.Option(help="What a sentence starts from: zeros, the stored state, the sentence before."),
    ] = States.zero,
    raw: Annotated[
        bool, typer.Option("--raw", help="Split words by the model's rule, not at blanks.")
    ] = False,
    split_sentences: Annotated[
        bool, typer.Option("--split-sentences", help="A line is a paragraph, not one sentence.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of running text, with carried states.")] = 32,
    batch_words: Annotated[int, typer.Option(help="Words of a batch, with the other states.")] = 4096,
    text_column: Annotated[str | None, typer.Option(help="The column of text, if not 'text'.")] = None,
    tokens_column: Annotated[str | None, typer.Option(help="The column of words, if not 'tokens'.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON in place of the table.")] = False,
    progress: Annotated[bool, typer.Option(help="Show tokens a second and the time left.")] = True,
) -> None:
    """Tell how well a language model predicts a text, forward and backward, by the full softmax."""
    with one_sentence("elmo-hf"):
        import torch
        from transformers.utils import logging as transformers_logging

        from elmo_hf import TINY
        from elmo_hf.hub.results import command_line, perplexities, with_results
        from elmo_hf.loading import load_language_model
        from elmo_hf.pretraining.perplexity import perplexity as judge

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # what a folder lacks is said in a sentence of ours
        language_model, tokenizer = load_language_model(model or TINY)
        found = judge(
            language_model.to("cuda" if torch.cuda.is_available() else "cpu"),  # type: ignore[arg-type]
            text,
            tokenizer,
            states=states.value,
            raw=raw,
            split_sentences=split_sentences,
            rows=rows,
            batch_words=batch_words,
            text_column=text_column,
            tokens_column=tokens_column,
            progress=progress,
        )
        if as_json:
            content = found.to_dict() | {"command": command_line("elmo-hf", sys.argv[1:])}
            typer.echo(json.dumps(with_results(content, perplexities({str(text): found.to_dict()}))))
        else:
            _print_perplexity(found, language_model.config.vocab_size)


def _print_perplexity(found: "Perplexity", vocab_size: int) -> None:
    typer.echo(
        f"{found.sentences:,} sentences, {found.tokens:,} tokens in each direction (words, and a boundary a "
        f"sentence).\n{found.unknown:.2%} of the words are <UNK>. Softmax over all {vocab_size:,} words; "
        f"{found.states} states.\n"
    )
    mean_loss = 0.5 * (found.forward_loss + found.backward_loss)
    typer.echo(f"{'':>16}  {'perplexity':>12}  {'loss (nats)':>12}")
    for name, figure, loss in (
        ("forward", found.forward, found.forward_loss),
        ("backward", found.backward, found.backward_loss),
        ("mean", found.mean, mean_loss),
    ):
        typer.echo(f"{name:>16}  {figure:>12,.3f}  {loss:>12.4f}")
    typer.echo(f"{'arithmetic mean':>16}  {found.arithmetic_mean:>12,.3f}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A folder, or a name on the Hub.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist, or be empty.")
    ],
    layers: Annotated[str, typer.Option(help="top, average, all, or numbers: 0,1,2.")] = "top",
    int8: Annotated[
        bool, typer.Option("--int8", help="The LSTMs' weights with eight bits; the error is told.")
    ] = False,
) -> None:
    """Write a model as ONNX, with its tokenizer, once onnxruntime gave the vectors that torch gives."""
    with one_sentence("elmo-hf"):
        from transformers.utils import logging as transformers_logging

        from elmo_hf.export.onnx import export_onnx

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # what does not load is said in a sentence of ours
        found = export_onnx(model, output, layers=layers, int8=int8)
        typer.echo(
            f"{found}\nWrote {output}: model.onnx has {found.bytes:,} bytes, README.md says how to run it."
        )


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="The folder of a pretraining run, or its log.jsonl.")],
    output: Annotated[
        Path | None, typer.Argument(metavar="[OUTPUT.png]", help="The picture; log.png beside the log.")
    ] = None,
) -> None:
    """Draw the course of a pretraining run: training loss, held-out perplexity, words a second."""
    with one_sentence("elmo-hf"):
        from elmo_hf.pretraining.log import log_path, read_log
        from elmo_hf.pretraining.plot import draw

        path = log_path(run)
        output = output if output is not None else path.with_suffix(".png")
        draw(read_log(path), output, name=path.resolve().parent.name)
        typer.echo(f"Wrote {output}.")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, or one of a card only.")],
    facts: Annotated[Path | None, typer.Option(help="What no command knows; facts.yaml in FOLDER.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON that commands wrote; FOLDER/results.")] = None,
    output: Annotated[Path | None, typer.Option(help="The card; README.md in FOLDER.")] = None,
    repo: Annotated[str | None, typer.Option(help="Its name on the Hub, if not that of the facts.")] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A file of the original that was converted; its checksum goes into the results."),
    ] = None,
) -> None:
    """Write a model card from facts.yaml and the results of commands; refuse one with missing fields."""
    with one_sentence("elmo-hf"):
        from elmo_hf.hub.card import write_card
        from elmo_hf.hub.results import record_sources

        if source:
            typer.echo(f"Wrote {record_sources(source, results or folder / 'results')}.")
        typer.echo(f"Wrote {write_card(folder, facts, results, output, repo)}.")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Its name on the Hub.")],
    facts: Annotated[Path | None, typer.Option(help="Of the card; facts.yaml in FOLDER.")] = None,
    results: Annotated[Path | None, typer.Option(help="Of the card; FOLDER/results.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Made from main if it is not there; main.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Replace another README.md that is on the Hub.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go; send nothing.")] = False,
) -> None:
    """Upload a checkpoint with its code, card and results to the Hub, as one commit or not at all."""
    with one_sentence("elmo-hf"):
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging as transformers_logging

        from elmo_hf.hub.push import prepare
        from elmo_hf.hub.push import push as upload

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # what does not load is said in a sentence of ours
        hub_logging.set_verbosity_error()
        if dry_run:
            plan = prepare(folder, repo, facts, results)
            for name, size in plan.sizes().items():
                typer.echo(f"{size:>15,}  {name}")
            typer.echo(f"{sum(plan.sizes().values()):>15,}  bytes would go to {repo}; nothing was sent.")
            if plan.stays:
                typer.echo(f"These stay here: {', '.join(plan.stays)}.")
            return
        address = upload(
            folder,
            repo,
            facts=facts,
            results=results,
            private=private,
            branch=branch,
            create_pr=create_pr,
            overwrite_card=overwrite_card,
            ask=typer.confirm if sys.stdin.isatty() else None,
        )
        typer.echo(f"Uploaded: {address}")


@app.command()
def demo(
    model: Model = None,
    tagger: Annotated[
        str | None, typer.Option(help="A folder or name of a model that labels words; its labels are shown.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Of the page; the first free one from 7860.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open a page on this machine: type sentences, pick a word, see where it is used in the same way."""
    with one_sentence("elmo-hf"):
        from elmo_hf import TINY
        from elmo_hf.demo import free_port, load, serve

        port = free_port(port=port)  # before the models are read
        serve(load(model or TINY, tagger), port=port, browser=browser, tell=typer.echo)


if __name__ == "__main__":  # `accelerate launch -m elmo_hf.cli`
    app()
