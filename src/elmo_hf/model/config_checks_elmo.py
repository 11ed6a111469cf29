"""What an `ElmoConfig` refuses, in one sentence each: unknown options, extreme sizes, what does not fit."""

import difflib
from dataclasses import fields
from typing import Any

from .folder_elmo import quoted
from .words_elmo import MAX_CHARACTERS, MAX_WORDS

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


class ElmoConfigChecks:
    """The checks of an `ElmoConfig`, which inherits them."""

    def _refuse_unknown(self: Any, options: dict[str, Any]) -> None:
        """The base class stores a misspelt option without a warning."""
        known = {field.name for field in fields(self)}
        for name in options:
            is_private = name.startswith("_") and not hasattr(object, name)
            if name in TRANSFORMERS_OPTIONS or (is_private and not callable(getattr(self, name, None))):
                continue
            close = difflib.get_close_matches(name[:100], known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "see the arguments of ElmoConfig."
            raise ValueError(f"ElmoConfig has no option '{quoted(name)}'; {hint}")

    def _check_library_options(self: Any, options: dict[str, Any]) -> None:
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

    # `strict` runs every validate_* method after __post_init__.

    def validate_sizes(self: Any) -> None:
        for name, (lowest, highest) in LIMITS.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                allowed = f"at most {highest}" if value > highest else "0 or more"
                allowed = f"at least {lowest}" if value < lowest == 1 else allowed
                raise ValueError(f"ElmoConfig: {name} must be {allowed}, but is {quoted(value)}.")

    def validate_filters(self: Any) -> None:
        if not self.char_filters:
            raise ValueError("ElmoConfig: char_filters is empty; give at least one [width, number] pair.")
        self._check_filters("char_filters", fit=self.token_encoder == "characters")
        self._check_filters("task_char_filters", fit=True)
        if self.token_encoder == "characters" and self.max_characters_per_token < 3:
            raise ValueError(
                "ElmoConfig: max_characters_per_token must be at least 3 (word begin, one letter, word end), "
                f"but is {self.max_characters_per_token}."
            )

    def _check_filters(self: Any, name: str, fit: bool) -> None:
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

    def validate_word_boundaries(self: Any) -> None:
        ids = self.boundary_characters or []
        if len(ids) != 5 or len(set(ids)) < 5 or not 0 < min(ids) <= max(ids) < self.num_characters:
            raise ValueError(
                "ElmoConfig: boundary_characters must be five different ids (sentence begin, sentence end, "
                f"word begin, word end, padding) from 1 to {self.num_characters - 1}, but are {quoted(ids)}."
            )

    def validate_projection(self: Any) -> None:
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

    def validate_layers(self: Any) -> None:
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

    def validate_numbers(self: Any) -> None:
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

    def validate_maxout(self: Any) -> None:
        if self.maxout_pieces < 0 or self.maxout_pieces == 1:
            raise ValueError(
                "ElmoConfig: maxout_pieces must be at least 2, or 0 for ReLU layers instead, but is "
                f"{self.maxout_pieces}."
            )

    def validate_role_rules(self: Any) -> None:
        if self.role_rules and self.tag_scheme == "none":
            raise ValueError(
                "ElmoConfig: role_rules counts roles by their B- labels, so tag_scheme must not be 'none'; "
                "set it to 'BIO'."
            )

    def validate_task_input(self: Any) -> None:
        if not (self.elmo_at_input or self.task_word_dim or self.task_char_filters):
            raise ValueError(
                "ElmoConfig: a task model would have nothing to read; set elmo_at_input, or give it words of "
                "its own by task_word_dim or task_char_filters."
            )

    def validate_labels(self: Any) -> None:
        names: Any = self.id2label
        if not names or sorted(names) != list(range(len(names))):
            raise ValueError(
                f"ElmoConfig: id2label must name the labels 0, 1, ..., but has {quoted(list(names))}."
            )
        if wrong := [name for name in names.values() if not isinstance(name, str)]:
            raise ValueError(f"ElmoConfig: id2label must hold names, but has {quoted(wrong[0])}.")

    def validate_token_ids(self: Any) -> None:
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
