"""ElmoConfig: the sizes and options of an ELMo and of task models. `config_checks_elmo.py` has their limits.

All published variants are settings: letters, word lengths, layers, highway layers, projections, clips,
residual connections, relu or tanh, and a table of word vectors in place of the characters or beside them.
"""

import functools
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .config_checks_elmo import LARGEST, ElmoConfigChecks
from .folder_elmo import ElmoFolder, library_errors, quoted
from .words_elmo import NUM_CHARACTER_IDS

BOUNDARY_CHARACTERS = [257, 258, 259, 260, 261]  # of the bytes in `words_elmo.py`
# Options that 0.1.0 does not have. Their defaults are not written, so that it reads what does not need them.
NEWER_OPTIONS = {
    "num_characters": NUM_CHARACTER_IDS,
    "boundary_characters": BOUNDARY_CHARACTERS,
    "word_embedding_dim": 0,
    "lstm_projection": None,
    "stacked_lstm_layers": 0,
    "num_mixes": 0,
}


def one_sentence(cls: type) -> type:
    """`strict` wraps an error into several lines, and the base class fails on options of other types; this
    decorator keeps the sentence that says what is wrong."""
    strict_init = cls.__init__  # type: ignore[misc]

    @functools.wraps(strict_init)
    def __init__(self: Any, **options: Any) -> None:
        try:
            strict_init(self, **options)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, StrictDataclassError) else error
            reason = quoted(str(cause or error).strip(), 500)
            raise ValueError(
                reason if reason.startswith("ElmoConfig") else f"ElmoConfig: {reason.rstrip('.')}."
            ) from None

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@one_sentence
@strict
class ElmoConfig(ElmoConfigChecks, PreTrainedConfig):
    """The sizes and options of a model. The defaults are those of the original English ELMo (2018).

    >>> ElmoConfig(lstm_dim=64, projection_dim=16, char_filters=[[1, 8], [3, 16]]).hidden_size
    32

    Args:
        vocab_size: number of word ids: rows of the language model's softmax and of the word table, if any.
        token_encoder: `"characters"` reads a word letter by letter, `"words"` looks it up in a table.
        max_characters_per_token: characters in a row of character ids; a word has at most two less.
        num_characters: number of character ids: rows of their table. The id 0 means that there is no word.
        boundary_characters: the ids of sentence begin and end, word begin and end, and padding within a word.
        char_embedding_dim: size of a character's vector.
        char_filters: the convolutions as `[[width, number of filters], ...]`.
        char_activation: `"relu"` or `"tanh"`, after the maximum over the word.
        num_highway_layers: highway layers after the convolutions, 0 or more.
        char_projection: a linear layer maps the filters to `projection_dim`; by default if the sizes differ.
        word_embedding_dim: size of the vectors in a table of words, which a projection follows. With
            `"characters"` the table is beside them, and the projection reads `[word; characters]`; a row of
            character ids then ends with 1 + the word's id. 0 for no such table with `"characters"`, and for
            one of `projection_dim`, without a projection, with `"words"`.
        lstm_dim: memory cells of an LSTM, per direction.
        projection_dim: size of a word vector, and of an LSTM's output, per direction, if it has a projection.
        lstm_projection: whether an LSTM's output is projected to `projection_dim`; otherwise it has the size
            `lstm_dim`. By default it is exactly when `projection_dim` is below `lstm_dim`, as in bilm-tf.
        num_hidden_layers: number of biLSTM layers.
        stacked_lstm_layers: number of LSTMs in the only layer of a model whose LSTMs read both directions of
            the one below; such a model has no states. 0 for all others.
        cell_clip: limit of the cells' absolute value; `None` for no limit.
        proj_clip: limit of the projected output's absolute value; `None` for no limit.
        use_skip_connections: each layer from the second on adds its input to its output.
        dropout: in training, on each LSTM layer's input and, in the language model, on its output.
        num_mixes: number of trained mixes of its layers that the checkpoint holds, as `ElmoModel.scalar_mix`.
        has_warm_state: the checkpoint holds an initial state that `ElmoModel.warm_up` has stored.
        use_warm_state: a call without `states` starts from that state instead of zeros.
        bos_token_id, eos_token_id, unk_token_id, pad_token_id: word ids; padding is one past the vocabulary.

        elmo_at_input: of task models, as all that follow: the task's RNN reads `[x; ELMo]`.
        elmo_at_output: the classifier reads `[h; ELMo]`, by a mix of its own. With neither, there is no biLM.
        elmo_layers: `"mix"` for the learned mix of all layers, `"top"` for the top layer alone.
        elmo_dropout: after the mix.
        freeze_elmo: the biLM does not learn and has no dropout; otherwise it is tuned with the task.
        mix_l2: the paper's lambda; `mix_l2 * sum(w^2)` over the raw mix weights w is added to the loss.
        mix_gamma: the mix learns its scale; otherwise that is 1.
        mix_layer_norm: layers are normalised before they are mixed.
        task_word_dim: size of the task's own word vectors, one for each of `vocab_size` words; 0 for none.
        freeze_task_words: those vectors do not learn.
        task_char_filters, task_char_embedding_dim: those of the task's own character network; `[]` for none.
        task_hidden_size: cells of the task's RNN, per direction.
        task_num_layers: layers of the task's RNN.
        task_dropout: on the input of the RNN's layers and on its output, one mask for a whole sentence.
        use_crf: taggers score the labels of a sentence together (a conditional random field), or each alone.
        tag_scheme: `"BIO"` allows only sequences of labels in which an `I-X` follows a `B-X` or `I-X`;
            `"BIOUL"` only chunks that are one `U-X`, or `B-X`, any number of `I-X`, and `L-X`; `"none"`
            allows all. By default it is BIO exactly when every label is `O`, `B-...` or `I-...`.
        predicate_dim: size of the vector that tells a role labeller which word is the predicate.
        role_rules: a role labeller's best sequence keeps the rules of roles: a core role occurs at most once,
            `C-X` comes after an `X`, and `R-X` needs an `X`.
        classifier: `"bcn"` classifies one text, `"esim"` a pair of sentences.
        maxout_pieces: number of linear maps of the maxout layers of `"bcn"`; 0 for ReLU layers.
        max_answer_length: words of the longest answer to a question.
        max_span_width: words of the longest mention that coreference considers.
        spans_per_word: number of spans that coreference keeps for each word of a document.
        max_antecedents: number of kept spans before a span, the nearest, that may be its antecedent.
        span_hidden_size: size of both layers of the networks that score spans and pairs of spans.
        span_feature_dim: size of the vectors for a span's width and for the distance of two spans.
    """

    model_type = "elmo"

    vocab_size: int = 793_471
    token_encoder: Literal["characters", "words"] = "characters"
    max_characters_per_token: int = 50
    num_characters: int = NUM_CHARACTER_IDS
    boundary_characters: list[int] | None = None
    char_embedding_dim: int = 16
    char_filters: list[list[int]] | None = None
    char_activation: Literal["relu", "tanh"] = "relu"
    num_highway_layers: int = 2
    char_projection: bool | None = None
    word_embedding_dim: int = 0
    lstm_dim: int = 4096
    projection_dim: int = 512
    lstm_projection: bool | None = None
    num_hidden_layers: int = 2
    stacked_lstm_layers: int = 0
    num_mixes: int = 0
    cell_clip: float | int | None = 3.0
    proj_clip: float | int | None = 3.0
    use_skip_connections: bool = True
    dropout: float | int = 0.1
    has_warm_state: bool = False
    use_warm_state: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | None = 1
    unk_token_id: int | None = 2
    pad_token_id: int | None = None

    elmo_at_input: bool = True
    elmo_at_output: bool = False
    elmo_layers: Literal["mix", "top"] = "mix"
    elmo_dropout: float | int = 0.5
    freeze_elmo: bool = True
    mix_l2: float | int = 0.001
    mix_gamma: bool = True
    mix_layer_norm: bool = False
    task_word_dim: int = 0
    freeze_task_words: bool = False
    task_char_filters: list[list[int]] | None = None
    task_char_embedding_dim: int = 16
    task_hidden_size: int = 200
    task_num_layers: int = 2
    task_dropout: float | int = 0.5
    use_crf: bool = True
    tag_scheme: Literal["BIO", "BIOUL", "none"] | None = None
    predicate_dim: int = 100
    role_rules: bool = False
    classifier: Literal["bcn", "esim"] = "bcn"
    maxout_pieces: int = 4
    max_answer_length: int = 17
    max_span_width: int = 10
    spans_per_word: float | int = 0.4
    max_antecedents: int = 250
    span_hidden_size: int = 150
    span_feature_dim: int = 20

    def __post_init__(self, **kwargs: Any) -> None:
        self._refuse_unknown(kwargs)
        self._check_library_options(kwargs)
        if self.char_filters is None:
            self.char_filters = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
        self.char_filters = [list(pair) for pair in self.char_filters]
        self.boundary_characters = list(
            BOUNDARY_CHARACTERS if self.boundary_characters is None else self.boundary_characters
        )
        self.task_char_filters = [list(pair) for pair in self.task_char_filters or []]
        if self.pad_token_id is None:
            self.pad_token_id = self.vocab_size
        for name in ("cell_clip", "proj_clip", "mix_l2"):  # torch takes no whole number of 2**63 or more
            value = getattr(self, name)
            if type(value) is int and abs(value) <= LARGEST:
                setattr(self, name, float(value))
        super().__post_init__(**kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        with library_errors(pretrained_model_name_or_path):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **options)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """The file is checked before Transformers reads it."""
        name = pretrained_model_name_or_path
        if not Path(name).is_file() and not options.get("gguf_file"):
            settings = ElmoFolder(name, options).read_object("config.json") or {}
            for key in ("configuration_files", "transformers_weights"):  # names of other files
                if settings.get(key) is not None:
                    raise ValueError(f"the config.json of {quoted(name)} must not have the option '{key}'.")
        return super().get_config_dict(name, **options)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Options given to `from_pretrained` are checked like those of config.json, which they replace."""
        names = {field.name for field in fields(cls)} - {"dtype"}
        options = {name: kwargs.pop(name) for name in list(kwargs) if name in names}
        if "vocab_size" in options:
            options.setdefault("pad_token_id", None)  # one past the new vocabulary
        return super().from_dict({**config_dict, **options}, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        options, defaults = super().to_diff_dict(), NEWER_OPTIONS.items()
        return {name: value for name, value in options.items() if (name, value) not in defaults}

    @property
    def reads_elmo(self) -> bool:
        """Whether a task model contains the biLM."""
        return self.elmo_at_input or self.elmo_at_output

    @property
    def num_filters(self) -> int:
        assert self.char_filters is not None
        return sum(number for _, number in self.char_filters)

    @property
    def reads_word_column(self) -> bool:
        """Whether a row of character ids ends with 1 + the word's id."""
        return self.token_encoder == "characters" and self.word_embedding_dim > 0

    @property
    def reads_bytes(self) -> bool:
        """Whether it reads characters that a tokenizer without files makes, the bytes of a word."""
        are_bytes = (
            self.num_characters == NUM_CHARACTER_IDS and self.boundary_characters == BOUNDARY_CHARACTERS
        )
        return self.token_encoder == "characters" and are_bytes and not self.reads_word_column

    @property
    def char_ids_length(self) -> int:
        """Length of a row of `char_ids`."""
        return self.max_characters_per_token + self.reads_word_column

    @property
    def has_char_projection(self) -> bool:
        if self.char_projection is None:
            return self.reads_word_column or self.num_filters != self.projection_dim
        return self.char_projection

    @property
    def has_lstm_projection(self) -> bool:
        if self.lstm_projection is None:
            return self.stacked_lstm_layers > 0 or self.projection_dim < self.lstm_dim
        return self.lstm_projection

    @property
    def output_dim(self) -> int:
        """Size of one direction's output."""
        return self.projection_dim if self.has_lstm_projection else self.lstm_dim

    @property
    def hidden_size(self) -> int:
        """Size of a word's vector in context: twice `output_dim`."""
        return 2 * self.output_dim


ElmoConfig.register_for_auto_class()
