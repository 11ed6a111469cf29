"""The base of all task models: a task's own words beside ELMo, and what its RNN computes beside ELMo.

    class ElmoForMyTask(ElmoTaskModel):
        def __init__(self, config):
            super().__init__(config)
            self.rnn = ElmoBiRNN(self.input_size, config.task_hidden_size, config.task_num_layers)
            self.classifier = nn.Linear(self.rnn.output_size + self.elmo_output_size, config.num_labels)
            self.post_init()

        def forward(self, input_ids=None, char_ids=None, attention_mask=None, inputs_embeds=None, ...):
            words = self.read(input_ids, char_ids, attention_mask, inputs_embeds)
            h = self.rnn(words.x, words.mask)                      # x is [x; ELMo_in]
            scores = self.classifier(words.beside(h))              # [h; ELMo_out]
            ...
            loss = self.with_penalty(loss)

By default the biLM is frozen: it has no gradient and no dropout, so it gives the same layers for a sentence
in every epoch, and `model.elmo_cache = ElmoLayerCache()` stores them. With adapters of PEFT in a model,
PEFT says what learns: the adapters, also those in a frozen biLM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .cache_elmo import ElmoLayerCache
from .checks_elmo import check_char_ids, check_input_ids, check_shape, word_mask
from .configuration_elmo import ElmoConfig
from .layers_elmo import ElmoScalarMix, words_first
from .modeling_elmo import AUTO_MAP, ElmoModel, ElmoPreTrainedModel, checks_once


class ElmoWordTable(nn.Embedding):
    """A task's own vectors for the words of the tokenizer's vocabulary."""


class ElmoTaskWords(nn.Module):
    """x: a task's own vector of a word, from a table, from its characters, from both, or from neither."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__()
        self.config = config
        filters = config.task_char_filters or []
        self.size = config.task_word_dim + sum(number for _, number in filters)
        if config.task_word_dim:
            self.word_table = ElmoWordTable(config.vocab_size, config.task_word_dim)
        if filters:
            dim = config.task_char_embedding_dim
            self.char_embedding = nn.Embedding(config.num_characters, dim, padding_idx=0)
            self.convolutions = nn.ModuleList(nn.Conv1d(dim, number, width) for width, number in filters)

    def forward(self, input_ids: Tensor | None, char_ids: Tensor | None, mask: Tensor) -> Tensor | None:
        """(batch, words), (batch, words, char_ids_length), (batch, words) -> (batch, words, size), or None"""
        vectors = []
        if self.config.task_word_dim:
            assert input_ids is not None  # checked by the caller
            vectors.append(self._from_table(input_ids))
        if self.config.task_char_filters:
            assert char_ids is not None  # checked by the caller
            vectors.append(self._from_characters(char_ids))
        return torch.cat(vectors, dim=-1).masked_fill(~mask[:, :, None], 0) if vectors else None

    def _from_table(self, input_ids: Tensor) -> Tensor:
        """(batch, words) -> (batch, words, task_word_dim), zero at padding, whose id is one past the table"""
        is_word = input_ids < self.config.vocab_size
        vectors = self.word_table(input_ids.masked_fill(~is_word, 0))
        return vectors.masked_fill(~is_word[..., None], 0)

    def _from_characters(self, char_ids: Tensor) -> Tensor:
        """(batch, words, char_ids_length) -> (batch, words, filters). Each different word is encoded once."""
        characters = char_ids[..., : self.config.max_characters_per_token]  # without the word's id
        characters = self._without_padding(characters)
        words, index = characters.flatten(0, 1).unique(dim=0, return_inverse=True)
        x = self.char_embedding(words).transpose(1, 2)  # (words, dim, characters)
        encoded = torch.cat([F.relu(conv(x).amax(dim=-1)) for conv in self.convolutions], dim=-1)
        return encoded[index].unflatten(0, char_ids.shape[:2])

    def _without_padding(self, characters: Tensor) -> Tensor:
        """The columns up to the end of the longest word, and as many of its padding as the widest filter
        reads: the maximum over all columns is the same. (`unique` waits for a GPU in any case.)"""
        padding = (self.config.boundary_characters or [0])[-1]
        is_letter = ((characters != padding) & (characters != 0)).flatten(0, 1).any(dim=0)
        longest = int(is_letter.nonzero().amax()) + 1 if bool(is_letter.any()) else 1
        return characters[..., : longest + max(width for width, _ in self.config.task_char_filters or [])]


@dataclass
class ElmoTaskInput:
    """What `ElmoTaskModel.read` returns.

    Args:
        x: the input of the task's RNN, `[x; ELMo_in]`, (batch, words, input_size).
        mask: True for a word, (batch, words).
        at_output: ELMo for the classifier, (batch, words, hidden_size), or None.
        hidden_states: the biLM's layers, with `output_hidden_states` and if there is a biLM.
    """

    x: Tensor
    mask: Tensor
    at_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def beside(self, h: Tensor) -> Tensor:
        """h (batch, words, dim) -> `[h; ELMo_out]`"""
        return h if self.at_output is None else torch.cat([h, self.at_output], dim=-1)


class ElmoTaskModel(ElmoPreTrainedModel):
    """The base of all heads: it reads a task's own words and a mix of the layers of a biLM, which it freezes.

    A head calls `read` for `[x; ELMo]`, puts its network on `.x`, and its classifier on `.beside(h)`. The
    sizes of both are `input_size` and `elmo_output_size` (0 without ELMo at the output).
    """

    elmo: ElmoModel
    elmo_cache: ElmoLayerCache | None = None

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        mixes_words = config.elmo_layers == "mix" and config.projection_dim != config.output_dim
        if config.reads_elmo and mixes_words:
            raise ValueError(
                f"this biLM's words have {2 * config.projection_dim} numbers and its layers "
                f"{config.hidden_size}, so they cannot be mixed; set elmo_layers='top'."
            )
        if config.reads_elmo:
            self.elmo = ElmoModel(config)
        else:
            self.auto_map = {"AutoConfig": AUTO_MAP["AutoConfig"], "AutoTokenizer": AUTO_MAP["AutoTokenizer"]}
        self.task_words = ElmoTaskWords(config)
        self.input_mix = self._make_mix() if config.elmo_at_input else None
        self.output_mix = self._make_mix() if config.elmo_at_output else None
        self.input_size = self.task_words.size + config.elmo_at_input * config.hidden_size
        self.elmo_output_size = config.elmo_at_output * config.hidden_size
        self.train()  # freezes what the config says

    def _make_mix(self) -> ElmoScalarMix:
        config = self.config
        return ElmoScalarMix(
            num_layers=config.num_hidden_layers + 1 if config.elmo_layers == "mix" else 1,
            layer_norm=config.mix_layer_norm,
            dropout=config.elmo_dropout,
            l2=config.mix_l2,
        )

    def read(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ElmoTaskInput:
        """Check sentences, given as to `ElmoModel`, and read them.

        The biLM alone reads `inputs_embeds`; a task's own words need the ids.
        """
        mask = self.check_words(input_ids, char_ids, attention_mask, inputs_embeds)
        return self.read_checked(input_ids, char_ids, mask, inputs_embeds, output_hidden_states)

    def check_words(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> Tensor:
        """Check each tensor that is read, and return where there are words, (batch, words)."""
        config = self.config
        mask = word_mask(config, input_ids, char_ids, attention_mask, inputs_embeds)
        checked = "none" if inputs_embeds is not None else config.token_encoder
        if config.task_word_dim:
            if checked != "words":
                check_input_ids(config, input_ids)
            check_shape("input_ids", input_ids, mask)
        if config.task_char_filters and checked != "characters":
            check_char_ids(config, char_ids)
        return mask

    def read_checked(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> ElmoTaskInput:
        """Read sentences whose tensors have been checked, or are parts of such tensors."""
        own = self.task_words(input_ids, char_ids, mask)
        inputs = [own] if own is not None else []
        at_output, layers = None, None
        if self.config.reads_elmo:
            if output_hidden_states is None:
                output_hidden_states = self.config.output_hidden_states
            all_layers = bool(output_hidden_states) or self.config.elmo_layers == "mix"
            layers = self._layers(input_ids, char_ids, mask, inputs_embeds, all_layers)
            mixed = layers if self.config.elmo_layers == "mix" else layers[-1:]
            if self.input_mix is not None:
                inputs.append(self.input_mix(mixed, mask))
            if self.output_mix is not None:
                at_output = self.output_mix(mixed, mask)
        x = torch.cat(inputs, dim=-1)
        return ElmoTaskInput(x, mask, at_output, layers if output_hidden_states else None)

    @checks_once
    def _layers(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        inputs_embeds: Tensor | None,
        all_layers: bool,
    ) -> tuple[Tensor, ...]:
        """The biLM's layers, each (batch, words, hidden_size), or the top layer alone."""
        if self.elmo_cache is not None and inputs_embeds is None:
            if not self.config.freeze_elmo:
                raise ValueError(
                    "a biLM that is tuned cannot be cached; set freeze_elmo, or elmo_cache = None."
                )
            return self.elmo_cache(self.elmo, input_ids, char_ids, mask, all_layers)
        words = self.elmo.word_vectors(input_ids, char_ids, inputs_embeds)
        output = self.elmo(
            inputs_embeds=words, attention_mask=mask, output_hidden_states=all_layers, return_dict=True
        )
        return output.hidden_states if all_layers else (output.last_hidden_state,)

    def with_penalty(self, loss: Tensor) -> Tensor:
        """The task's loss plus `mix_l2 * sum(w^2)` of each mix, in training and in evaluation."""
        for mix in (self.input_mix, self.output_mix):
            if mix is not None:
                if hasattr(mix, "base_layer"):
                    raise ValueError(  # PEFT passes no method of its wrapper on
                        "an adapter of a mix is larger than its few weights; leave the mix out of the "
                        "adapter's targets, and name input_mix or output_mix in modules_to_save."
                    )
                loss = loss + mix.penalty()
        return loss

    @contextmanager
    def in_eval_mode(self) -> Iterator[None]:
        """Without dropout and gradients, whatever the mode; afterwards the mode is as before."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    @property
    def head_modules(self) -> list[str]:
        """The names of the task's own modules that learn, beside the biLM: for a new task, they are what
        PEFT's configs call `modules_to_save`."""
        own = [(name, module) for name, module in self.named_children() if name != "elmo"]
        return [name for name, module in own if any(weight.requires_grad for weight in module.parameters())]

    def train(self, mode: bool = True) -> "ElmoTaskModel":
        """Set the mode, and what is learnt: loading makes every weight learnable, so it is set here again.

        Adapters in the model learn, and keep their dropout, also in a frozen biLM.
        """
        super().train(mode)
        if self.config.reads_elmo and self.config.freeze_elmo:
            self.elmo.train(False)  # a frozen biLM has no dropout
            set_adapters_mode(self.elmo, mode)
        if not has_adapters(self):
            self._set_learnable()
        return self

    def _set_learnable(self) -> None:
        config = self.config
        if config.reads_elmo:
            self.elmo.requires_grad_(not config.freeze_elmo)
        if config.task_word_dim:
            self.task_words.word_table.requires_grad_(not config.freeze_task_words)
        for mix in (self.input_mix, self.output_mix):
            if mix is not None:
                mix.gamma.requires_grad_(config.mix_gamma)
                mix.weights.requires_grad_(config.elmo_layers == "mix")  # a single layer has the weight 1

    # ---- what the library asks for

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the biLM, or of the task's own words in a model without one."""
        if self.config.reads_elmo:
            return self.elmo.get_input_embeddings()
        words = self.task_words
        return words.word_table if self.config.task_word_dim else words.char_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        if self.config.reads_elmo:
            self.elmo.set_input_embeddings(value)
        else:
            name = "word_table" if self.config.task_word_dim else "char_embedding"
            setattr(self.task_words, name, value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ElmoWordTable):
            limit = (3 / module.embedding_dim) ** 0.5  # a vector's length is about 1, whatever its size
            init.uniform_(module.weight, -limit, limit)
        else:
            super()._init_weights(module)


# ---- adapters of PEFT, which stand around the modules that they adapt


def is_adapter(module: nn.Module) -> bool:
    """Whether it is a module of PEFT around one of the model; told without importing PEFT."""
    return hasattr(type(module), "adapter_layer_names")


def has_adapters(model: Any) -> bool:
    return any(is_adapter(module) for module in model.modules())


def set_adapters_mode(model: nn.Module, mode: bool) -> None:
    """Set the mode of adapters, and not of what they adapt."""
    for module in filter(is_adapter, model.modules()):
        module.training = mode
        for name, child in module.named_children():
            if name not in ("base_layer", "original_module"):
                child.train(mode)


# ---- rows that hold two texts, `first </S> <S> second`


def boundary_words(
    config: ElmoConfig, mask: Tensor, input_ids: Tensor | None, char_ids: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Where the words `</S>` and `<S>` are, each (batch, words); None if a row is given as vectors only."""
    if char_ids is not None and config.token_encoder == "characters":
        first_letters, (begin, end, *_) = char_ids[:, :, 1], config.boundary_characters or []
        return mask & (first_letters == end), mask & (first_letters == begin)
    if input_ids is None:
        return None
    return mask & (input_ids == config.eos_token_id), mask & (input_ids == config.bos_token_id)


def second_begins(boundaries: tuple[Tensor, Tensor]) -> Tensor:
    """Where an `<S>` follows a `</S>`, as between the texts of a pair, (batch, words)."""
    ends, begins = boundaries
    return begins & F.pad(ends, (1, 0))[:, :-1]


def split_pair(mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the first text's words are, the `</S>` behind them, the `<S>`, and the second text's words.

    All are (batch, words). The types are 0 up to `</S>` and 1 from `<S>` on.
    """
    first, second = mask & (token_type_ids == 0), mask & (token_type_ids == 1)
    end = first & (first.cumsum(dim=1) == first.sum(dim=1, keepdim=True))  # the last word of type 0
    begin = second & (second.cumsum(dim=1) == 1)
    return first & ~end, end, begin, second & ~begin


class ElmoSegment:
    """One of the texts of each row, moved to the left, so that the model reads it as a sentence by itself.

    in_row: where the text's words are in the row, (batch, words).
    mask: where they are after the move, (batch, longest).
    """

    def __init__(self, in_row: Tensor) -> None:
        lengths = in_row.sum(dim=1, keepdim=True)
        longest = max([1, *lengths.flatten().tolist()])
        self.in_row = in_row
        self.order = words_first(in_row)[:, :longest]
        self.mask = torch.arange(self.order.shape[1], device=in_row.device) < lengths

    def gather(self, x: Tensor) -> Tensor:
        """(batch, words, ...) -> (batch, longest, ...), with other words of the row behind the last word"""
        return x.take_along_dim(_like(x, self.order), dim=1)

    def take(self, x: Tensor) -> Tensor:
        """(batch, words, ...) -> (batch, longest, ...), zero behind the last word"""
        return self.gather(x).masked_fill(~_like(x, self.mask), 0)

    def put_back(self, x: Tensor, elsewhere: float = 0.0) -> Tensor:
        """(batch, longest, ...) -> (batch, words, ...)"""
        x = x.masked_fill(~_like(x, self.mask), elsewhere)
        row = x.new_full((*self.in_row.shape, *x.shape[2:]), elsewhere)
        return row.scatter(1, _like(x, self.order).expand_as(x), x)


def _like(x: Tensor, words: Tensor) -> Tensor:
    """words (batch, words) -> (batch, words, 1, ...), with as many dimensions as x"""
    return words.reshape(*words.shape, *[1] * (x.dim() - 2))
