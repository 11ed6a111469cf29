"""What a run starts from: a checkpoint of its own, a text, and a fresh or a trained model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as short
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import nn

from elmo_hf.convert.conversion import convert_checkpoint
from elmo_hf.convert.tensorflow import holds_checkpoint
from elmo_hf.corpus.encoded import EncodedText, is_encoded
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.errors import ElmoError
from elmo_hf.loading import load_language_model, vocabulary_fields
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.tokenization_elmo import ElmoTokenizer
from elmo_hf.pretraining.checkpoints import find_checkpoint
from elmo_hf.pretraining.processes import Processes
from elmo_hf.pretraining.progress import read_progress
from elmo_hf.pretraining.sending import refuse_later_checkpoints
from elmo_hf.pretraining.settings import FIXED_ON_RESUME, Settings
from elmo_hf.pretraining.sums import Sums, of_vocabulary, read_sums

# ---- checkpoint


def start_checkpoint(settings: Settings, processes: Processes) -> Path | None:
    """Return the checkpoint to resume from, if any; in the main process, which has those of all.

    Raises:
        ElmoError: `resume` names no intact checkpoint, or the run was begun with another model or recipe.
    """
    checkpoint = None
    with processes.collect_errors():
        if processes.accelerator.is_main_process:
            checkpoint = find_checkpoint(Path(settings.output), settings.resume, processes.warn)
        if checkpoint is not None:
            check_resumed(read_progress(checkpoint).settings, asdict(settings))
    processes.raise_errors()
    refuse_later_checkpoints(processes, Path(settings.output))
    return checkpoint


def check_resumed(old: dict[str, object], new: dict[str, object]) -> None:
    for name in FIXED_ON_RESUME:
        if old.get(name) != new[name]:
            raise ElmoError(
                f"the run was begun with {name} {short(old.get(name))}, and now it is {short(new[name])}; "
                "use the same, or start another run from its checkpoint by --start."
            )


# ---- text


def open_text(settings: Settings, data: list[str] | None = None) -> Source | EncodedText:
    """Open the text of `settings.data`, or other data with the same settings."""
    heldout_every = settings.heldout_every if data is None else None
    data = settings.data if data is None else data
    if any(map(is_encoded, data)):
        return open_encoded(settings, data, heldout_every)
    return Source(
        data[0] if len(data) == 1 else data,
        column=settings.column,
        split=settings.split,
        config=settings.subset,
        raw=settings.raw,
        split_sentences=settings.split_sentences,
        heldout_every=heldout_every,
    )


def open_encoded(settings: Settings, data: list[str], heldout_every: int | None) -> EncodedText:
    """Open a folder of `elmo_hf.corpus.encoded`."""
    if len(data) > 1:
        raise ElmoError(f"{data[0]} and others: an encoded text is read alone; encode all files together.")
    if heldout_every is not None:
        raise ElmoError(
            f"{data[0]} is an encoded text, of which heldout_every holds out nothing; name a held-out text "
            "by --heldout."
        )
    text = EncodedText(data[0])
    text.check_splitting(settings.raw, settings.split_sentences)
    return text


def open_heldout(settings: Settings) -> dict[str, Source | EncodedText]:
    """Open the held-out texts, by file name, or by path where two files have the same name."""
    names = [Path(path).name for path in settings.heldout]
    sources: dict[str, Source | EncodedText] = {}
    for path, name in zip(settings.heldout, names, strict=True):
        source = open_text(settings, [path])
        if next(iter(source), None) is None:
            raise ElmoError(f"{source.name} is empty; there is no word in it.")
        sources[name if names.count(name) == 1 else path] = source
    return sources


# ---- model


class Start(NamedTuple):
    """What a run begins with.

    Args:
        sums: Adagrad's sums of squares by the names of parameters; empty where it starts afresh.
        notes: what to tell about the start, as sentences.
    """

    model: ElmoForPreTraining
    tokenizer: ElmoTokenizer
    sums: Sums
    notes: list[str]


def start_model(settings: Settings, checkpoint: Path | None) -> Start:
    """Return the model of the checkpoint, that of `settings.start`, or a fresh one, and its tokenizer."""
    torch.manual_seed(settings.seed)
    if checkpoint is not None:
        start = Start(*load_language_model(str(checkpoint)), {}, [])
    elif settings.start is None:
        start = Start(*fresh_model(settings), {}, [])
    else:
        start = trained_model(settings, settings.start)
    set_dropout(start.model, settings.dropout)
    return start


def trained_model(settings: Settings, name: str) -> Start:
    """The model of a folder, of a name on the Hub, or of a TensorFlow checkpoint."""
    with converted(name, settings.vocab) as (folder, notes):
        # With a vocabulary of its own, a run needs no softmax of the model; AllenNLP's files have none.
        model, tokenizer = load_language_model(folder, needs_softmax=settings.vocab is None)
        sums = read_sums(Path(folder), model)
        if sums and settings.optimizer != "adagrad":
            notes.append(f"Adagrad's sums of squares of {name} are not used: the optimizer is another.")
            sums = {}
        elif sums:
            notes.append(f"Adagrad continues with the sums of squares of {name}.")
        if settings.vocab is not None and folder == name:
            model, tokenizer, rows = with_vocabulary(model, tokenizer, settings.vocab)
            start = settings.optimizer_settings().accumulator
            sums = of_vocabulary(sums, rows, model.config.vocab_size, start)
    return Start(model, tokenizer, sums, notes)


@contextmanager
def converted(name: str, vocab: str | None) -> Iterator[tuple[str, list[str]]]:
    """The folder of the model; a TensorFlow checkpoint is converted into a temporary one."""
    if not holds_checkpoint(Path(name)):
        yield name, []
        return
    if vocab is None:
        raise ElmoError(f"{name} holds no vocabulary; name that of its softmax by --vocab.")
    with TemporaryDirectory(prefix="elmo-hf-") as folder:
        plan = convert_checkpoint(Path(name), Path(vocab), Path(folder))
        try:
            yield folder, [f"{name}: assumed that {sentence}." for sentence in plan.assumed]
        except ElmoError as error:  # of a file that nobody else can see
            raise ElmoError(str(error).replace(folder, name)) from None


def set_dropout(model: ElmoForPreTraining, dropout: float) -> None:
    """Dropout belongs to the recipe and not to the weights, so a run may change it."""
    model.config.dropout = dropout
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def fresh_model(settings: Settings) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    assert settings.vocab is not None
    Vocabulary.load(settings.vocab)  # raises a clear error where the file is wrong
    splitter = "penn" if settings.raw else "whitespace"
    tokenizer = ElmoTokenizer(settings.vocab, settings.max_characters_per_token, splitter)
    config = settings.model_config(**vocabulary_fields(tokenizer))
    return ElmoForPreTraining(config), tokenizer


def with_vocabulary(
    model: ElmoForPreTraining, tokenizer: ElmoTokenizer, vocab: str
) -> tuple[ElmoForPreTraining, ElmoTokenizer, tuple[torch.Tensor, torch.Tensor]]:
    """Return the same model with another vocabulary to predict, its tokenizer, and the (new, old) ids of the
    words that both have.

    Words of the old vocabulary keep their rows of the softmax (and of the word table, if there is one). The
    rows of new words start as in a fresh model.
    """
    Vocabulary.load(vocab)  # raises a clear error where the file is wrong
    new_tokenizer = tokenizer.with_vocabulary(vocab)
    changes = vocabulary_fields(new_tokenizer)
    new_model = ElmoForPreTraining(ElmoConfig.from_dict(model.config.to_dict() | changes))
    old_ids, new_ids = tokenizer.get_vocab(), new_tokenizer.get_vocab()
    for name in ("bos_token", "eos_token", "unk_token"):  # they may have other names in the old vocabulary
        old_ids[getattr(new_tokenizer, name)] = getattr(tokenizer, f"{name}_id")
    shared = [word for word in new_ids if word in old_ids and new_ids[word] < new_tokenizer.vocab_size]
    new_rows = torch.tensor([new_ids[word] for word in shared])
    old_rows = torch.tensor([old_ids[word] for word in shared])
    old_weights = model.state_dict()
    for name, weight in new_model.state_dict().items():
        if name.startswith("lm_head.") or name.endswith("word_embedding.weight"):
            weight[new_rows] = old_weights[name][old_rows]
        else:
            weight.copy_(old_weights[name])
    return new_model, new_tokenizer, (new_rows, old_rows)
