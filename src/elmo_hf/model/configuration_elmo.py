"""ElmoConfig: the sizes and options of an ELMo and of task models, with one sentence for every mistake.

All published variants are settings: letters, word lengths, layers, highway layers, projections, clips,
residual connections, relu or tanh, and a table of word vectors in place of the characters or beside them.
"""

import difflib
import functools
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from .folder_elmo import ElmoFolder, library_errors, quoted
from .words_elmo import MAX_CHARACTERS, MAX_WORDS, NUM_CHARACTER_IDS

# Options that Transformers takes or writes into a config, although its base class has no such fields.
TRANSFORMERS_OPTIONS = {
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "per_layer_config",
    "quantization_config",
    "task_specific_params",
    "tie_word_embeddings",
    "torch_dtype",
    "use_cache",
}

TYPES = ("float16", "bfloat16", "float32", "float64")
# The lowest and highest value of each size. The highest are far from any model's, and a folder's weights must
# have the sizes of its config, so they only bound what is computed before those are compared.
LIMITS = {
    "vocab_size": (1, MAX_WORDS),
    "max_characters_per_token": (1, MAX_CHARACTERS),
    "num_characters": (1, 2**21),
    "word_embedding_dim": (0, 2**16),
    "char_embedding_dim": (1, 2**16),
    "num_highway_layers": (0, 2**8),
    "lstm_dim": (1, 2**20),
    "projection_dim": (1, 2**20),
    "num_hidden_layers": (1, 2**8),
    "stacked_lstm_layers": (0, 2**8),
    "num_mixes": (0, 2**8),
    "task_word_dim": (0, 2**16),
    "task_char_embedding_dim": (1, 2**16),
    "task_hidden_size": (1, 2**20),
    "task_num_layers": (1, 2**8),
    "predicate_dim": (1, 2**16),
    "maxout_pieces": (0, 2**8),
    "max_answer_length": (1, 2**20),
    "max_span_width": (1, 2**12),
    "max_antecedents": (1, 2**20),
    "span_hidden_size": (1, 2**16),
    "span_feature_dim": (1, 2**16),
}
MAX_FILTERS, MAX_FILTER_SIZES = 2**20, 2**8
MAX_LABELS = 2**14
LARGEST = 3e38  # float32
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
class ElmoConfig(PreTrainedConfig):
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

    def _check_library_options(self, options: dict[str, Any]) -> None:
        """What the base class acts upon: what it would import, download, or build a table of."""
        for dtype in (self.dtype, options.get("torch_dtype")):
            if dtype is not None and str(dtype).removeprefix("torch.") not in TYPES:
                raise ValueError(f"ElmoConfig: dtype must be one of {TYPES}, but is {quoted(dtype)!r}.")
        for name in ("attn_implementation", "experts_implementation"):
            value = options.get(name, options.get(f"_{name}"))
            if value not in (None, "eager"):
                raise ValueError(
                    f"ElmoConfig: {name} must be 'eager', for an ELMo has none; it is {quoted(value)!r}."
                )
        count = options.get("num_labels")
        if count is not None and (type(count) is not int or not 0 < count <= MAX_LABELS):
            raise ValueError(
                f"ElmoConfig: num_labels must be from 1 to {MAX_LABELS}, but is {quoted(count)}."
            )
        if self.id2label is not None and not isinstance(self.id2label, dict):
            raise ValueError(
                f"ElmoConfig: id2label must be {{0: name, ...}}, but is {quoted(self.id2label)}."
            )
        if self.id2label is not None and len(self.id2label) > MAX_LABELS:
            raise ValueError(f"ElmoConfig: id2label has {len(self.id2label)} labels, more than {MAX_LABELS}.")

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

    def _refuse_unknown(self, options: dict[str, Any]) -> None:
        """The base class stores a misspelt option without a warning."""
        known = {field.name for field in fields(self)}
        for name in options:
            is_private = name.startswith("_") and not hasattr(object, name)
            if name in TRANSFORMERS_OPTIONS or (is_private and not callable(getattr(self, name, None))):
                continue
            close = difflib.get_close_matches(name[:100], known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "see the arguments of ElmoConfig."
            raise ValueError(f"ElmoConfig has no option '{quoted(name)}'; {hint}")

    # `strict` runs every validate_* method after __post_init__.

    def validate_sizes(self) -> None:
        for name, (lowest, highest) in LIMITS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                allowed = f"at most {highest}" if value > highest else "0 or more"
                allowed = f"at least {lowest}" if value < lowest == 1 else allowed
                raise ValueError(f"ElmoConfig: {name} must be {allowed}, but is {quoted(value)}.")

    def validate_filters(self) -> None:
        if not self.char_filters:
            raise ValueError("ElmoConfig: char_filters is empty; give at least one [width, number] pair.")
        self._check_filters("char_filters", fit=self.token_encoder == "characters")
        self._check_filters("task_char_filters", fit=True)
        if self.token_encoder == "characters" and self.max_characters_per_token < 3:
            raise ValueError(
                "ElmoConfig: max_characters_per_token must be at least 3 (word begin, one letter, word end), "
                f"but is {self.max_characters_per_token}."
            )

    def _check_filters(self, name: str, fit: bool) -> None:
        pairs = getattr(self, name)
        if (
            len(pairs) > MAX_FILTER_SIZES
            or max((pair[-1] for pair in pairs if pair), default=0) > MAX_FILTERS
        ):
            raise ValueError(
                f"ElmoConfig: {name} may hold at most {MAX_FILTER_SIZES} pairs, each of at most "
                f"{MAX_FILTERS} filters."
            )
        for pair in pairs:
            if len(pair) != 2 or min(pair) < 1 or any(isinstance(number, bool) for number in pair):
                raise ValueError(
                    f"ElmoConfig: {name} must be [width, number] pairs of at least 1, but holds "
                    f"{quoted(pair)}."
                )
            if fit and pair[0] > self.max_characters_per_token:
                raise ValueError(
                    f"ElmoConfig: {name} has a filter of width {pair[0]}, but max_characters_per_token "
                    f"is {self.max_characters_per_token}, so it fits into no word."
                )

    def validate_word_boundaries(self) -> None:
        ids = self.boundary_characters or []
        if len(ids) != 5 or len(set(ids)) < 5 or not 0 < min(ids) <= max(ids) < self.num_characters:
            raise ValueError(
                "ElmoConfig: boundary_characters must be five different ids (sentence begin, sentence end, "
                f"word begin, word end, padding) from 1 to {self.num_characters - 1}, but are {quoted(ids)}."
            )

    def validate_projection(self) -> None:
        if self.char_projection is False and self.reads_word_column:
            raise ValueError(
                "ElmoConfig: char_projection is False, but words beside characters (word_embedding_dim) need "
                "one."
            )
        if self.char_projection is False and self.num_filters != self.projection_dim:
            raise ValueError(
                f"ElmoConfig: char_projection is False, but the {self.num_filters} char_filters need a "
                f"projection to projection_dim {self.projection_dim}."
            )

    def validate_layers(self) -> None:
        has_layers = self.num_hidden_layers > 1 or self.lstm_projection is False or self.has_warm_state
        if self.stacked_lstm_layers and has_layers:
            raise ValueError(
                "ElmoConfig: with stacked_lstm_layers a model has num_hidden_layers=1, an lstm_projection, "
                "and no warm state."
            )
        if self.num_mixes and self.projection_dim != self.output_dim:
            raise ValueError(
                f"ElmoConfig: num_mixes is {self.num_mixes}, but the words of projection_dim "
                f"{self.projection_dim} and the layers' outputs of {self.output_dim} cannot be mixed."
            )

    def validate_numbers(self) -> None:
        for name in ("cell_clip", "proj_clip"):
            value = getattr(self, name)
            if value is not None and not (0 < value <= LARGEST or value == float("inf")):
                raise ValueError(
                    f"ElmoConfig: {name} must be above 0, or None for no limit, but is {quoted(value)}."
                )
        for name in ("dropout", "elmo_dropout", "task_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"ElmoConfig: {name} must be at least 0 and below 1, but is {quoted(value)}."
                )
        if not 0 <= self.mix_l2 <= LARGEST:
            raise ValueError(f"ElmoConfig: mix_l2 must be 0 or more, but is {quoted(self.mix_l2)}.")
        if not 0 < self.spans_per_word <= LIMITS["max_span_width"][1]:
            raise ValueError(
                f"ElmoConfig: spans_per_word must be above 0, but is {quoted(self.spans_per_word)}."
            )
        if self.use_warm_state and not self.has_warm_state:
            raise ValueError(
                "ElmoConfig: use_warm_state is True, but the checkpoint stores no warm state; "
                "call model.warm_up(text) first."
            )

    def validate_maxout(self) -> None:
        if self.maxout_pieces < 0 or self.maxout_pieces == 1:
            raise ValueError(
                "ElmoConfig: maxout_pieces must be at least 2, or 0 for ReLU layers instead, but is "
                f"{self.maxout_pieces}."
            )

    def validate_role_rules(self) -> None:
        if self.role_rules and self.tag_scheme == "none":
            raise ValueError(
                "ElmoConfig: role_rules counts roles by their B- labels, so tag_scheme must not be 'none'; "
                "set it to 'BIO'."
            )

    def validate_task_input(self) -> None:
        if not (self.elmo_at_input or self.task_word_dim or self.task_char_filters):
            raise ValueError(
                "ElmoConfig: a task model would have nothing to read; set elmo_at_input, or give it words of "
                "its own by task_word_dim or task_char_filters."
            )

    def validate_labels(self) -> None:
        names: Any = self.id2label
        if not names or sorted(names) != list(range(len(names))):
            raise ValueError(
                f"ElmoConfig: id2label must name the labels 0, 1, ..., but has {quoted(list(names))}."
            )
        if wrong := [name for name in names.values() if not isinstance(name, str)]:
            raise ValueError(f"ElmoConfig: id2label must hold names, but has {quoted(wrong[0])}.")

    def validate_token_ids(self) -> None:
        """Replaces a check of the base class, which warns of padding's id, one past the vocabulary."""
        for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
            value = getattr(self, name)
            limit = self.vocab_size + (name == "pad_token_id")
            if value is not None and not 0 <= value < limit:
                raise ValueError(
                    f"ElmoConfig: {name} must be from 0 to {limit - 1} (vocab_size is {self.vocab_size}), "
                    f"but is {quoted(value)}."
                )
        if self.reads_word_column and None in (self.bos_token_id, self.eos_token_id):
            raise ValueError("ElmoConfig: words beside characters need bos_token_id and eos_token_id.")

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
        """Whether a tokenizer without files makes its `char_ids`."""
        return not self.reads_word_column and self.num_characters == NUM_CHARACTER_IDS

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
