"""The `elmo-hf` command.

elmo-hf vectors "He sat on the bank." "The bank lent him money."
elmo-hf convert weights.hdf5 options.json my-elmo/
elmo-hf convert my-elmo/ back/ --to bilm
elmo-hf embed corpus.txt vectors/ --model my-elmo/ --layers average
elmo-hf vocab corpus/*.txt vocab.txt --min-count 3
elmo-hf perplexity held-out.txt --model my-elmo/
elmo-hf export my-elmo/ my-elmo-onnx/
elmo-hf export my-elmo/ vectors.txt --static words.txt
elmo-hf plot my-run/
elmo-hf card my-elmo/
elmo-hf push my-elmo/ someone/my-elmo
elmo-hf demo --model my-elmo/
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from elmo_hf.errors import ElmoError, one_sentence, warn, without_secrets
from elmo_hf.options import options_for, options_of

if TYPE_CHECKING:
    from elmo_hf.pretraining.perplexity import Perplexity

# Each command imports what it runs, so that `--help` waits for no library.

Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, or a name on the Hub.", show_default="elmo-tiny, which comes with the package"
    ),
]
Column = Annotated[
    str | None, typer.Option(help="The column of the text or the words. Default: text or tokens.")
]
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(is_asked: bool) -> None:
    if is_asked:
        from elmo_hf import __version__

        typer.echo(f"elmo-hf {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """ELMo for Hugging Face Transformers: vectors of words in their context.

    Try it, with the small model that comes with the package:

        elmo-hf vectors "He sat on the river bank." "The bank lent him money."

    vectors and embed give the vectors of sentences and of corpora, convert
    reads the ELMos that AllenNLP, bilm-tf and others published, vocab,
    perplexity and plot serve pretraining on your own text, export, card and
    push pass a model on. COMMAND --help describes each, and elmo-hf
    --install-completion sets up the Tab key.
    """


@app.command()
def convert(
    sources: Annotated[
        list[Path], typer.Argument(help="A folder, or files: weights, options.json, vocabulary, ...")
    ],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must not exist, or be empty.")],
    to: Annotated[
        Literal["transformers", "bilm"], typer.Option(help="The format to write.")
    ] = "transformers",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be taken, assumed and left out; write nothing."),
    ] = False,
    name: Annotated[str | None, typer.Option(help="Which model, if the files hold several.")] = None,
    cell_clip: Annotated[
        float | None, typer.Option(help="Limit of the LSTM cells, in place of the files' value; 0 for none.")
    ] = None,
    proj_clip: Annotated[
        float | None,
        typer.Option(help="Limit of the layers' outputs, in place of the files' value; 0 for none."),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="relu or tanh after the convolutions, in place of the files' value.")
    ] = None,
    skip_connections: Annotated[
        bool | None,
        typer.Option(
            "--skip-connections/--no-skip-connections",
            help="Residual connections between the layers, in place of the files' value.",
        ),
    ] = None,
    max_characters: Annotated[
        int | None,
        typer.Option(help="Letters of a word with its begin and end, in place of the files' value."),
    ] = None,
) -> None:
    """Convert a published ELMo to a Transformers folder, or a folder back to HDF5.

    Files are recognised by their content, whatever their names: HDF5 with an
    options.json, TensorFlow checkpoints and TF-Hub modules, AllenNLP's archives,
    folders of ELMoForManyLangs; and a vocabulary.
    """
    with one_sentence("elmo-hf"):
        from elmo_hf.convert import convert, convert_to_bilm

        logging.basicConfig(format="%(message)s")
        if not dry_run:
            logging.getLogger("elmo_hf").setLevel(logging.INFO)  # tells what was taken and what was left
        changes = {
            "cell_clip": cell_clip,
            "proj_clip": proj_clip,
            "char_activation": activation,
            "use_skip_connections": skip_connections,
            "max_characters_per_token": max_characters,
        }
        settings: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
        settings |= {key: None for key in ("cell_clip", "proj_clip") if settings.get(key) == 0}
        if to == "bilm":
            if len(sources) != 1:
                raise ElmoError(f"--to bilm converts one folder, but got {len(sources)} sources.")
            if settings or name or dry_run:
                raise ElmoError("--to bilm takes no other option; convert the folder as it is.")
            convert_to_bilm(sources[0], target)
        else:
            plan = convert(sources, target, settings=settings, name=name, dry_run=dry_run)
            if dry_run:
                typer.echo("\n".join(plan.lines()))
                return
        typer.echo(f"Wrote {target}:")
        for path in sorted(path for path in target.rglob("*") if path.is_file()):
            typer.echo(f"  {path.relative_to(target)}  {path.stat().st_size:,} bytes")


@app.command()
def vectors(
    sentences: Annotated[
        list[str] | None,
        typer.Argument(help="Sentences of plain text, each in quotes; - reads standard input."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="A file of sentences: text, .jsonl, .parquet, .csv; may be given repeatedly."),
    ] = None,
    model: Model = None,
    layers: Annotated[
        str, typer.Option(help="top, average, all, mix (the model's trained mix), or numbers: 0,1,2.")
    ] = "average",
    pool: Annotated[str | None, typer.Option(help="mean or max: a vector for each sentence.")] = None,
    format: Annotated[
        Literal["text", "json", "npy"] | None,
        typer.Option(
            help="text (some numbers to look at), json (all numbers, a line for each word) or npy.",
            show_default="that of the output's name, or text",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="The file to write. Beside NAME.npy, NAME.json gets the words."),
    ] = None,
    column: Column = None,
    whitespace: Annotated[
        bool, typer.Option("--whitespace", help="Split text at whitespace only, not by the model's rule.")
    ] = False,
    as_text: Annotated[
        bool, typer.Option("--as-text", help="Take arguments for sentences even if they name files.")
    ] = False,
    progress: Annotated[
        bool, typer.Option(help="Show words per second, if it takes more than some seconds.")
    ] = True,
) -> None:
    """Print or write the vector of each word in its context: the average of the layers, or --layers.

    Words that occur more than once are compared: the cosine of their vectors in each layer.
    """
    with one_sentence("elmo-hf"):
        from elmo_hf import TINY
        from elmo_hf.demo.sentences import choose_output, write_vectors

        write_vectors(
            sentences or [],
            file or [],
            choose_output(format, as_json, output),
            model or TINY,
            as_text=as_text,
            column=column,
            layers=layers,
            pool=pool,
            whitespace=whitespace,
            progress=progress,
        )


@app.command()
@options_of("embedding/job.py", "embed", without={"tokenizer"})
def embed(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Text (one sentence per line), .jsonl, .parquet or .csv; .gz, .bz2, .xz, .zst; a data set "
            "on the Hub; - for standard input.",
        ),
    ],
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The folder to write, or to continue; or its address.")
    ],
    model: Model = None,
    **options: Any,
) -> None:
    """Write the vectors of a corpus. After an interruption, the same command continues where it stopped.

    `accelerate launch -m elmo_hf.cli embed ...` distributes the work over several processes.
    """
    with one_sentence("elmo-hf"):
        from transformers.utils import logging as transformers_logging

        from elmo_hf import TINY
        from elmo_hf import embed as write_vectors

        logging.basicConfig(format="%(message)s")
        logging.getLogger("elmo_hf").setLevel(logging.INFO)  # tells which of how many processes this is
        transformers_logging.disable_progress_bar()
        vectors = write_vectors(**options_for(context, write_vectors) | {"model": model or TINY})
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"{without_secrets(output)}: the vectors of {len(vectors):,} sentences.")


@app.command()
@options_of("corpus/counting.py", "count_vocabulary", without={"tell"})
def vocab(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files (text, .jsonl, .parquet, .csv; .gz, .xz, .zst), patterns, a folder, a Hub data set.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file to write: vocab.txt.")],
    **options: Any,
) -> None:
    """Count the words of a corpus and write the vocabulary of a language model (and vocab.counts.tsv).

    Words must be split as in training: use --raw and --split-sentences here if
    you use them there, and likewise --heldout-every.
    """
    with one_sentence("elmo-hf"):
        from elmo_hf.corpus.counting import count_vocabulary

        count_vocabulary(**options_for(context, count_vocabulary), tell=typer.echo)


@app.command()
@options_of("pretraining/perplexity.py", "perplexity", without={"progress"})
def perplexity(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="Text (one sentence per line), .jsonl, .parquet or .csv; .gz, .bz2, .xz, .zst.",
        ),
    ],
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
    progress: Annotated[bool, typer.Option(help="Show tokens per second and the time left.")] = True,
    **options: Any,
) -> None:
    """Compute the perplexity of a text, forward and backward, by the full softmax."""
    with one_sentence("elmo-hf"):
        import torch
        from transformers.utils import logging as transformers_logging

        from elmo_hf import TINY
        from elmo_hf.corpus.look import model_doubts
        from elmo_hf.corpus.source import open_records
        from elmo_hf.hub.results import command_line, perplexities, with_results
        from elmo_hf.loading import load_language_model
        from elmo_hf.pretraining.perplexity import perplexity as compute

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # missing weights are reported by our own error
        language_model, tokenizer = load_language_model(model or TINY)
        language_model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        arguments = options_for(context, compute) | {"model": language_model}
        result = compute(tokenizer=tokenizer, **arguments)
        if as_json:
            content = result.to_dict() | {"command": command_line("elmo-hf", sys.argv[1:])}
            typer.echo(json.dumps(with_results(content, perplexities({source: result.to_dict()}))))
        else:
            _print_perplexity(result, language_model.config.vocab_size)
        columns = {name: arguments[name] for name in ("column", "text_column", "tokens_column")}
        corpus = open_records(source, **columns)
        if not corpus.is_words:
            corpus.raw, corpus.split_sentences = arguments["raw"], arguments["split_sentences"]
        splits = tokenizer.word_splitter != "whitespace"
        for doubt in model_doubts(corpus, tokenizer.get_vocab(), model or "elmo-tiny", splits):
            warn(doubt)


def _print_perplexity(result: "Perplexity", vocab_size: int) -> None:
    typer.echo(
        f"{result.sentences:,} sentences, {result.tokens:,} tokens in each direction "
        f"(words, and one boundary per sentence).\n"
        f"{result.unknown:.2%} of the words are <UNK>. Softmax over all {vocab_size:,} words, "
        f"{result.states} states.\n"
    )
    mean_loss = 0.5 * (result.forward_loss + result.backward_loss)
    typer.echo(f"{'':>16}  {'perplexity':>12}  {'loss (nats)':>12}")
    for name, figure, loss in (
        ("forward", result.forward, result.forward_loss),
        ("backward", result.backward, result.backward_loss),
        ("mean", result.mean, mean_loss),
    ):
        typer.echo(f"{name:>16}  {figure:>12,.3f}  {loss:>12.4f}")
    typer.echo(f"{'arithmetic mean':>16}  {result.arithmetic_mean:>12,.3f}")


@app.command()
def export(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A folder, or a name on the Hub; with --static it may be left out.")
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="The folder to write; it must not exist, or be empty. With --static also a file, NAME.txt.",
        ),
    ] = None,
    layers: Annotated[str, typer.Option(help="top, average, all, or numbers: 0,1,2.")] = "top",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize the LSTM weights to int8; the error is printed.")
    ] = False,
    static: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="Write a table of the words of this file, one a line, instead of a model: GloVe's text if "
            "OUT ends in .txt, otherwise a model2vec folder. `vocabulary`: the model's own words.",
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show words per second of --static.")] = True,
) -> None:
    """Export a model to ONNX, with its tokenizer, if the vectors of onnxruntime equal those of torch.

    With --static, write vectors of single words; without a model, those of elmo-tiny.
    """
    if output is None and static is None:
        context.fail("Missing argument 'OUT'.")
    with one_sentence("elmo-hf"):
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # missing weights are reported by our own error
        if static is not None:
            name, target = ("", Path(model)) if output is None else (model, output)
            _export_static(name, target, static, layers, int8, progress)
            return
        assert output is not None
        from elmo_hf.export.onnx import export_onnx

        report = export_onnx(model, output, layers=layers, int8=int8)
        typer.echo(
            f"{report}\nWrote {output}: model.onnx has {report.bytes:,} bytes, README.md shows how to run it."
        )


def _export_static(model: str, output: Path, words: str, layers: str, int8: bool, progress: bool) -> None:
    from elmo_hf import TINY
    from elmo_hf.export.static import export_static

    if int8:
        raise ElmoError("--int8 is for ONNX; leave it out with --static.")
    if not model and (output / "config.json").exists():
        raise ElmoError(f"{output} holds a model; name what to write, too: elmo-hf export {output} OUT.")
    report = export_static(model or TINY, output, words, layers=layers, progress=progress)
    typer.echo(f"Wrote {output}: {report}")


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="The folder of a pretraining run, or its log.jsonl.")],
    output: Annotated[
        Path | None,
        typer.Argument(metavar="[OUTPUT.png]", help="The plot; default: log.png next to the log."),
    ] = None,
) -> None:
    """Plot a pretraining run: training loss, held-out perplexity, words per second."""
    with one_sentence("elmo-hf"):
        from elmo_hf.pretraining.log import log_path, read_log
        from elmo_hf.pretraining.plot import draw

        path = log_path(run)
        output = output if output is not None else path.with_suffix(".png")
        draw(read_log(path), output, name=path.resolve().parent.name)
        typer.echo(f"Wrote {output}.")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a folder for the card only.")],
    facts: Annotated[Path | None, typer.Option(help="Metadata; default: facts.yaml in FOLDER.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="JSON that commands wrote; default: FOLDER/results.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The card; default: README.md in FOLDER.")] = None,
    repo: Annotated[str | None, typer.Option(help="Its name on the Hub; default: that of the facts.")] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A file of the converted original; its checksum is recorded."),
    ] = None,
) -> None:
    """Write a model card, and results on benchmarks, from facts.yaml and the results of commands."""
    with one_sentence("elmo-hf"):
        from elmo_hf.hub.card import write_files
        from elmo_hf.hub.results import record_sources

        if source:
            typer.echo(f"Wrote {record_sources(source, results or folder / 'results')}.")
        for path in write_files(folder, facts, results, output, repo):
            typer.echo(f"Wrote {path}.")


@app.command()
@options_of("hub/push.py", "push", without={"ask", "message"})
def push(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A checkpoint's folder.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Its name on the Hub.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and send nothing.")
    ] = False,
    **options: Any,
) -> None:
    """Upload a checkpoint with its code, card and results to the Hub in one atomic commit."""
    with one_sentence("elmo-hf"):
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging as transformers_logging

        from elmo_hf.hub.push import prepare
        from elmo_hf.hub.push import push as upload

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # missing weights are reported by our own error
        hub_logging.set_verbosity_error()
        if dry_run:
            typer.echo(prepare(**options_for(context, prepare)).listing(repo))
            return
        ask = typer.confirm if sys.stdin.isatty() else None
        typer.echo(f"Uploaded: {upload(**options_for(context, upload), ask=ask)}")


@app.command()
def demo(
    model: Model = None,
    tagger: Annotated[
        str | None, typer.Option(help="A folder or Hub name of a tagger whose labels are shown.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the page; default: the first free one from 7860."),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Serve a page on this machine: type sentences, select a word, see its nearest occurrences."""
    with one_sentence("elmo-hf"):
        from elmo_hf import TINY
        from elmo_hf.demo import free_port, load, serve

        port = free_port(port=port)  # before the models are read
        serve(load(model or TINY, tagger), port=port, browser=browser, tell=typer.echo)


if __name__ == "__main__":  # `accelerate launch -m elmo_hf.cli`
    app()
