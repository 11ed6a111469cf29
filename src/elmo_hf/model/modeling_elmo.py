"""ELMo (Peters et al. 2018) from the words' vectors (`encoders_elmo.py`) on: two stacks of LSTMs, layers.

The forward half of a vector has read the sentence from its beginning up to the word, the backward half from
its end down to the word. Both directions are one tensor: direction 0 reads the words in their order,
direction 1 reads them in reverse, and one batched product computes a step of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple

from .cells_elmo import ElmoHighwayLSTM, init_rnn
from .checks_elmo import (
    check_has_states,
    check_no_attentions,
    check_states,
    check_where,
    checked_folder,
    word_mask,
)
from .configuration_elmo import ElmoConfig
from .encoders_elmo import ElmoCarry, ElmoCharacterEncoder, ElmoWordEncoder, token_encoder
from .layers_elmo import ElmoBiRNN, ElmoScalarMix, ElmoStoredMix
from .tokenization_elmo import ElmoTokenizer

try:  # faster code for the LSTM, where the whole package is installed
    from elmo_hf import kernels

    checks_once = kernels.checks_once
except (ImportError, AttributeError):  # a copy of this file, where the package is missing or older
    kernels, checks_once = None, lambda method: method  # type: ignore[assignment]

# (h, c) of every layer: (layers, 2 directions, rows, output_dim) and (layers, 2, rows, lstm_dim).
States = tuple[Tensor, Tensor]
ALL = slice(None)

# Every saved folder loads as these classes; the library adds the entry of the class that was saved.
AUTO_MAP: dict[str, Any] = {
    "AutoConfig": "configuration_elmo.ElmoConfig",
    "AutoModel": "modeling_elmo.ElmoModel",
    "AutoTokenizer": ["tokenization_elmo.ElmoTokenizer", None],
}


# ---- words -> words in their context


def clip(x: Tensor, limit: float | None) -> Tensor:
    """x limited to -limit ... limit. What is cut off has no gradient."""
    return x if limit is None else x.clamp(-limit, limit)


def lstm(
    x: Tensor,
    mask: Tensor,
    h: Tensor,
    c: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    projection: Tensor | None,
    cell_clip: float | None,
    proj_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """An LSTM with projection in both directions. This is the definition that `kernels` is tested against.

        i, j, f, o = x_t W + h U + b
        c = clip(sigmoid(f + 1) * c + sigmoid(i) * tanh(j))
        h = clip((sigmoid(o) * tanh(c)) P)

    The first dimension of each tensor is the direction: x (2, batch, time, input), mask (2, batch, time),
    h (2, batch, output), c (2, batch, cells), input_weight W (2, input, 4 * cells), recurrent_weight U
    (2, output, 4 * cells), bias (2, 4 * cells), projection P (2, cells, output). Where the mask is False the
    state does not change and the output is zero. Returns the outputs and the last h and c.
    """
    from_input = torch.einsum("dbti,dig->dtbg", x, input_weight) + bias[:, None, None]
    outputs = []
    for t in range(x.shape[2]):
        gates = torch.baddbmm(from_input[:, t], h, recurrent_weight)
        i, j, f, o = gates.chunk(4, dim=-1)
        new_c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
        new_c = clip(new_c, cell_clip)
        new_h = torch.sigmoid(o) * torch.tanh(new_c)
        if projection is not None:
            new_h = clip(torch.bmm(new_h, projection), proj_clip)
        is_word = mask[:, :, t, None]
        c = torch.where(is_word, new_c, c)
        h = torch.where(is_word, new_h, h)
        outputs.append(torch.where(is_word, new_h, 0))
    return torch.stack(outputs, dim=2) if outputs else h[:, :, None][:, :, :0], h, c


class ElmoLayer(GradientCheckpointingLayer):
    """A biLSTM layer: an LSTM in each direction, with a residual connection from the second layer on."""

    def __init__(self, config: ElmoConfig, index: int) -> None:
        super().__init__()
        self.config = config
        self.adds_input = config.use_skip_connections and index > 0
        cells, output = config.lstm_dim, config.output_dim
        input_size = config.projection_dim if index == 0 else output
        self.input_weight = nn.Parameter(torch.empty(2, input_size, 4 * cells))
        self.recurrent_weight = nn.Parameter(torch.empty(2, output, 4 * cells))
        self.bias = nn.Parameter(torch.empty(2, 4 * cells))
        self.projection = nn.Parameter(torch.empty(2, cells, output)) if config.has_lstm_projection else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (2, batch, time, input_size) -> (2, batch, time, output_dim), and the last h and c"""
        x = self.dropout(x)
        weights = (self.input_weight, self.recurrent_weight, self.bias, self.projection)
        fast = None
        if kernels:
            fast = kernels.choose_lstm(x, *weights, states=(h, c), definition=lstm, owner=self)
        clips = self.config.cell_clip, self.config.proj_clip
        outputs, h, c = (fast or lstm)(x, mask, h, c, *weights, *clips)
        return outputs + x if self.adds_input else outputs, h, c


class ElmoStackedLayer(GradientCheckpointingLayer):
    """A stack of LSTMs of which each reads both directions of the one below, and one projection for both. It
    has the form of an `ElmoLayer`, but reads sentences only, and has no state."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__()
        sizes = config.projection_dim, config.lstm_dim, config.stacked_lstm_layers
        self.rnn = ElmoBiRNN(*sizes, dropout=config.dropout)
        self.projection = nn.Linear(config.lstm_dim, config.projection_dim)

    def forward(self, x: Tensor, mask: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (2, batch, time, projection_dim) -> the same, and h and c as they are"""
        if kernels:
            kernels.no_lstm("stacked LSTMs have no faster code")
        forward, backward = self.rnn(x[0], mask[0]).chunk(2, dim=-1)  # x[1] is the mirror image of x[0]
        outputs = self.projection(torch.stack([forward, backward.flip(1)]))
        return outputs.masked_fill(~mask[..., None], 0), h, c


# ---- the models


@dataclass
class ElmoModelOutput(ModelOutput):
    """What `ElmoModel` returns.

    >>> list(model(**batch, output_states=True))
    ['last_hidden_state', 'states']

    Args:
        last_hidden_state: the top layer, (batch, words, 2 * output_dim), forward half first; zero at padding.
        hidden_states: with `output_hidden_states`, all layers, each (batch, words, dim), word vectors first.
        states: with `output_states`, (h, c) after the sentences, for the `states` of the next call.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    states: States | None = None


class ElmoPreTrainedModel(PreTrainedModel):
    """What all ELMo models share: their initial weights, and how they are saved."""

    config: ElmoConfig
    config_class = ElmoConfig
    base_model_prefix = "elmo"
    auto_map = AUTO_MAP
    supports_gradient_checkpointing = True
    _no_split_modules = [  # noqa: RUF012
        "ElmoCharacterEncoder",
        "ElmoWordAndCharacterEncoder",
        "ElmoWordEncoder",
        "ElmoLayer",
        "ElmoStackedLayer",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As in bilm-tf, and TensorFlow's default (Glorot) elsewhere. The library calls this only for modules
        that hold parameters themselves."""
        if isinstance(module, (nn.LSTM, nn.GRU, ElmoHighwayLSTM)):
            init_rnn(module)
            return  # the library would draw other numbers before, and those of later modules would change
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -1.0, 1.0)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[module.padding_idx] = 0
        elif isinstance(module, nn.Conv1d):
            if self.config.char_activation == "relu":
                init.uniform_(module.weight, -0.05, 0.05)
            else:
                init.normal_(module.weight, std=(module.in_channels * module.kernel_size[0]) ** -0.5)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.constant_(module.bias, -2.0 if isinstance(module, ElmoCarry) else 0.0)
        elif isinstance(module, ElmoLayer):
            self._init_lstm(module)
        elif isinstance(module, ElmoScalarMix):
            start = module.weights.new_tensor(module.initial_weights)
            init.copy_(module.weights, start.expand_as(module.weights))
            init.ones_(module.gamma)
        elif isinstance(module, ElmoModel) and module.config.has_warm_state:
            init.zeros_(module.warm_h)
            init.zeros_(module.warm_c)

    def _init_lstm(self, layer: ElmoLayer) -> None:
        _, input_size, gates = layer.input_weight.shape
        output = layer.recurrent_weight.shape[1]
        limit = (6 / (input_size + output + gates)) ** 0.5  # bilm-tf has one matrix for both
        init.uniform_(layer.input_weight, -limit, limit)
        init.uniform_(layer.recurrent_weight, -limit, limit)
        init.zeros_(layer.bias)
        if layer.projection is not None:
            limit = (6 / (gates // 4 + output)) ** 0.5
            init.uniform_(layer.projection, -limit, limit)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **options: Any) -> Any:
        """As in Transformers, from safetensors files only. The files are checked before anything is built."""
        with checked_folder(cls, pretrained_model_name_or_path, options):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **options)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save weights, config and code, so that the folder also loads without this package."""
        self.config.auto_map = dict(self.auto_map)
        super().save_pretrained(*args, **kwargs)

    def set_use_kernels(self, use_kernels: bool, kernel_config: Any = None, mode: Any = None) -> None:
        """What `from_pretrained(..., use_kernels=True)` calls. The Hub has no kernels for an ELMo: its faster
        code is `elmo_hf.kernels`, which is used wherever it can be, also without this option."""
        if kernel_config is not None:
            raise ValueError("the Hub has no kernels for an ELMo; leave kernel_config out.")
        if use_kernels and kernels is None:
            raise ValueError(
                "an ELMo's faster code is in the package elmo_hf; pip install elmo-hf, or leave "
                "use_kernels out."
            )
        self._use_kernels = bool(use_kernels)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            "an ELMo's vocabulary cannot be resized in place: characters are fixed, and word ids are the "
            "rows of the softmax; make a model with the new vocab_size and copy the rows of known words."
        )


class ElmoModel(ElmoPreTrainedModel):
    """Each word's vectors in context, layer by layer: the bidirectional language model without its softmax.

    >>> model = ElmoModel.from_pretrained(TINY).eval()
    >>> output = model(**batch, output_hidden_states=True)
    >>> output.last_hidden_state.shape, len(output.hidden_states)  # the top layer; all layers
    (torch.Size([2, 5, 256]), 3)
    >>> model.warm_up(["He sat on the bank .", "Why ?"])
    >>> output = model(**batch, states=model.warm_states(rows=2))
    >>> top, states = model.read_windows(torch.stack([batch["char_ids"], batch["char_ids"].flip(1)]))

    There is one vector for each word. A call does not depend on earlier ones, unless it gets their `states`.
    `model.scalar_mix(output.hidden_states)` are the trained mixes of the layers, if the checkpoint has any.
    """

    _keys_to_ignore_on_load_unexpected = ["lm_head"]  # noqa: RUF012 (an ElmoModel can load a language model)

    token_encoder: ElmoCharacterEncoder | ElmoWordEncoder
    layers: nn.ModuleList
    scalar_mix: ElmoScalarMix | None
    warm_h: Tensor
    warm_c: Tensor

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.token_encoder = token_encoder(config)
        if config.stacked_lstm_layers:
            self.layers = nn.ModuleList([ElmoStackedLayer(config)])
        else:
            self.layers = nn.ModuleList(ElmoLayer(config, index) for index in range(config.num_hidden_layers))
        self.scalar_mix = ElmoStoredMix(config) if config.num_mixes else None
        if config.has_warm_state:
            self._register_warm_state(*self.zero_states(rows=1))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return getattr(self.token_encoder, self._embedding_name())

    def set_input_embeddings(self, value: nn.Module) -> None:
        setattr(self.token_encoder, self._embedding_name(), value)

    def _embedding_name(self) -> str:
        return "char_embedding" if self.config.token_encoder == "characters" else "word_embedding"

    @can_return_tuple
    @checks_once
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        states: States | None = None,
        output_states: bool = False,
        output_hidden_states: bool | None = None,
        keep_boundaries: bool = False,
        output_attentions: bool | None = None,
    ) -> ElmoModelOutput:
        """Read sentences.

        Args:
            input_ids: word ids, (batch, words); only a model with a word table reads them.
            char_ids: rows of `ElmoTokenizer`, (batch, words, config.char_ids_length), for all other models.
            attention_mask: (batch, words), 1 for a word and 0 for padding, on either side. By default a word
                is what has characters, or an id other than that of padding.
            inputs_embeds: vectors in place of ids: of words, (batch, words, projection_dim), or of characters
                where nothing else is read, (batch, words, characters, char_embedding_dim).
            states: `output.states` of the call that read the preceding text. Row i continues from row i of
                the states; additional rows start from zeros, and states without a row are returned unchanged.
            output_states: return the states after these sentences, with their gradient.
            output_hidden_states: return all layers; by default, what the config says.
            keep_boundaries: keep the vectors of sentence begin (first) and sentence end (last), which the
                model adds to each row and otherwise removes.
            output_attentions: what PEFT passes to any model; an ELMo has none, so True is refused.

        Returns:
            An `ElmoModelOutput`.
        """
        check_no_attentions(output_attentions)
        if states is not None or output_states:
            check_has_states(self.config)
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        starts_anew = states is None and not (output_states or keep_boundaries or self.training)
        if starts_anew and inputs_embeds is None:
            by_graph = self._read_by_graph(input_ids, char_ids, mask)
            if by_graph is not None:
                layers = tuple(by_graph) if output_hidden_states else None
                return ElmoModelOutput(last_hidden_state=by_graph[-1], hidden_states=layers)
        words = self.word_vectors(input_ids, char_ids, inputs_embeds)
        words = words.masked_fill(~mask[:, :, None], 0)
        # The backward direction reads the flipped row, from the end of the sentence to its beginning.
        x, mask = torch.stack([words, words.flip(1)]), torch.stack([mask, mask.flip(1)])
        rows, is_fresh = len(words), starts_anew and not self.config.stacked_lstm_layers
        after_first = kernels.keep_constant(self, self._after_first, rows) if is_fresh and kernels else None
        if after_first is not None:
            h, c = (state.expand(-1, -1, rows, -1).to(x) for state in after_first)
        else:
            # Padding does not change the state, so there may be padding between a boundary and the words.
            first = self._first_words().to(x.dtype)
            begin, end = (word.expand(-1, rows, -1, -1) for word in (first, first.flip(0)))
            x, mask = torch.cat([begin, x, end], dim=2), F.pad(mask, (1, 1), value=True)
            if is_fresh:  # a direction's last boundary changes only what nobody reads
                x, mask = x[:, :, :-1], mask[:, :, :-1]
            h, c = self._states_for(rows, states)
        inner = ALL if keep_boundaries or after_first is not None else slice(1, None if is_fresh else -1)
        all_layers, h, c = self._run_layers(x, mask, h, c, inner, bool(output_hidden_states))
        return ElmoModelOutput(
            last_hidden_state=all_layers[-1],
            hidden_states=tuple(all_layers) if output_hidden_states else None,
            states=(h, c) if output_states else None,
        )

    def _read_by_graph(
        self, input_ids: Tensor | None, char_ids: Tensor | None, mask: Tensor
    ) -> list[Tensor] | None:
        """All layers by one launch of a GPU, for a few sentences; None where there is no such thing."""
        ids = char_ids if self.config.token_encoder == "characters" else input_ids
        read = getattr(kernels, "read_sentences", None)  # the package may be older than a copy of this file
        if read is None or ids is None:
            return None
        check_where(self, ids, None)
        return read(self, ids, mask, lstm)

    def word_vectors(
        self, input_ids: Tensor | None, char_ids: Tensor | None, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """The words before any context, (batch, words, projection_dim), from checked tensors. A model that
        contains this one checks the ids itself, and passes these vectors as `inputs_embeds`."""
        encoder: Any = self.token_encoder
        reads_characters = self.config.token_encoder == "characters"
        ids = char_ids if reads_characters else input_ids
        check_where(self, ids, inputs_embeds)
        if inputs_embeds is None:
            return encoder(ids)
        if reads_characters and inputs_embeds.dim() == 4:
            return encoder.from_embeddings(inputs_embeds)
        return inputs_embeds

    def _first_words(self) -> Tensor:
        """The first word in each direction: sentence begin and sentence end, (2, 1, 1, projection_dim)."""
        return self.token_encoder.boundaries()[:, None, None]

    def _after_first(self) -> States:
        """The states after the first word in each direction, for one row."""
        first = self._first_words()
        return self._run_layers(first, first.new_ones(2, 1, 1).bool(), *self._states_for(1, None))[1:]

    def _run_layers(
        self, x: Tensor, mask: Tensor, h: Tensor, c: Tensor, inner: slice = ALL, all_layers: bool = False
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """x (2, batch, time, projection_dim) -> the top layer, or all, each (batch, words, dim); and the new
        states. The steps beside `inner` are removed."""
        layers, last_h, last_c = [], [], []
        for index, layer in enumerate(self.layers):
            if all_layers:
                layers.append(_to_words(x, inner))
                # The next layer reads the tensor that is returned, so that this one gets a gradient.
                x = _from_words(layers[-1], x, inner) if x.requires_grad else x
            x, layer_h, layer_c = layer(x, mask, h[index, :, : x.shape[1]], c[index, :, : x.shape[1]])
            last_h.append(layer_h)
            last_c.append(layer_c)
        layers.append(_to_words(x, inner))
        return layers, _with_unread_rows(last_h, h), _with_unread_rows(last_c, c)

    def read_windows(
        self, ids: Tensor, mask: Tensor | None = None, states: States | None = None
    ) -> tuple[Tensor, States]:
        """Read windows of running text, as in training: each direction its own words in its own order.

        Args:
            ids: (2, rows, steps, char_ids_length), or word ids (2, rows, steps) in a model with a word table.
                Sentence begin and end are among them; the model adds none.
            mask: (2, rows, steps), True for a word.
            states: those that the previous windows returned.

        Returns:
            The top layer in the order of reading, (2, rows, steps, output_dim), and the new states.
        """
        check_has_states(self.config)
        if ids.dim() < 3 or len(ids) != 2:
            raise ValueError(f"ids must have the shape (2, rows, steps, ...), but have {tuple(ids.shape)}.")
        flat_ids, flat_mask = ids.flatten(0, 1), mask.flatten(0, 1) if mask is not None else None
        mask = word_mask(self.config, flat_ids, flat_ids, flat_mask).unflatten(0, ids.shape[:2])
        (top,), h, c = self._run_layers(self.token_encoder(ids), mask, *self._states_for(len(ids[0]), states))
        forward, backward = top.chunk(2, dim=-1)
        return torch.stack([forward, backward.flip(1)]), (h, c)

    # ---- states

    def zero_states(self, rows: int) -> States:
        """States of zeros: h (layers, 2, rows, output_dim) and c (layers, 2, rows, lstm_dim)."""
        config, weight = self.config, next(self.layers.parameters())
        shape = (config.num_hidden_layers, 2, rows)
        return weight.new_zeros(*shape, config.output_dim), weight.new_zeros(*shape, config.lstm_dim)

    def _states_for(self, batch: int, states: States | None) -> States:
        """States with at least `batch` rows."""
        if states is None:
            return self.warm_states(batch) if self.config.use_warm_state else self.zero_states(batch)
        zeros = self.zero_states(batch)
        check_states(states, zeros)
        h, c = (
            torch.cat([state.to(zero), zero[:, :, state.shape[2] :]], dim=2)
            for state, zero in zip(states, zeros, strict=True)
        )
        return h, c

    def warm_states(self, rows: int) -> States:
        """The state that `warm_up` has stored, repeated for `rows` sentences; to be passed as `states`."""
        if not self.config.has_warm_state:
            raise ValueError("this model stores no warm state; call warm_up(text) first.")
        return self.warm_h.repeat(1, 1, rows, 1), self.warm_c.repeat(1, 1, rows, 1)

    def _register_warm_state(self, h: Tensor, c: Tensor) -> None:
        self.register_buffer("warm_h", h)
        self.register_buffer("warm_c", c)

    @torch.no_grad()
    def warm_up(self, text: str | Sequence[str], tokenizer: ElmoTokenizer | None = None) -> None:
        """Read text (a string, or its lines), and store the last state, so that the checkpoint contains it.

        A state of zeros gives the first words of a sentence poor vectors. The stored state is used only with
        `states=model.warm_states(batch)` or `config.use_warm_state = True`. A word table needs the tokenizer.
        """
        if tokenizer is None:
            if not self.config.reads_bytes:
                raise ValueError(
                    "a model with a word table or with letters of its own needs its tokenizer: "
                    "warm_up(text, tokenizer)."
                )
            tokenizer = ElmoTokenizer(max_characters_per_token=self.config.max_characters_per_token)
        lines = [line for line in (text.splitlines() if isinstance(text, str) else text) if line.strip()]
        if not lines:
            raise ValueError("warm_up needs some text, but got only empty lines.")
        states, was_training = self.zero_states(rows=1), self.training
        self.eval()
        for line in lines:
            encoding = tokenizer(line, return_tensors="pt").to(self.device)
            states = self(**encoding, states=states, output_states=True, return_dict=True).states
        self.train(was_training)
        self._register_warm_state(*states)
        self.config.has_warm_state = True


def _to_words(x: Tensor, inner: slice) -> Tensor:
    """(2, batch, time, dim) -> (batch, words, 2 * dim), the steps of `inner`."""
    return torch.cat([x[0, :, inner], x[1, :, inner].flip(1)], dim=-1)


def _from_words(words: Tensor, x: Tensor, inner: slice) -> Tensor:
    """The inverse of `_to_words`, with the other steps of x."""
    forward, backward = words.chunk(2, dim=-1)
    begin, end, _ = inner.indices(x.shape[2])
    return torch.cat([x[:, :, :begin], torch.stack([forward, backward.flip(1)]), x[:, :, end:]], dim=2)


def _with_unread_rows(layer_states: list[Tensor], old: Tensor) -> Tensor:
    """The layers' new states as one tensor, followed by the rows of `old` that no sentence continued."""
    states = torch.stack(layer_states)
    return torch.cat([states, old[:, :, states.shape[2] :]], dim=2)


ElmoModel.register_for_auto_class("AutoModel")
