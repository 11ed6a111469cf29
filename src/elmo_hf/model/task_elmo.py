"""What every task model is built on: ELMo beside the task's own words, and beside what its RNN makes of them.

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

The biLM is frozen unless the config says otherwise: it has no gradient and no dropout, so its layers for a
sentence are always the same, and `model.elmo_cache = ElmoLayerCache()` keeps them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .cache_elmo import ElmoLayerCache
from .checks_elmo import (
    check_range,
    check_shape,
    check_whole,
    checked_char_ids,
    checked_input_ids,
    word_mask,
)
from .configuration_elmo import ElmoConfig
from .crf_elmo import IGNORED
from .layers_elmo import ElmoHighwayLSTM, ElmoScalarMix
from .modeling_elmo import AUTO_MAP, ElmoModel, ElmoPreTrainedModel
from .words_elmo import NUM_CHARACTER_IDS


class ElmoWordTable(nn.Embedding):
    """A task's own vectors for the words of the tokenizer's vocabulary; padding, one past it, gets zeros."""

    def forward(self, input_ids: Tensor) -> Tensor:
        is_word = input_ids < self.num_embeddings
        vectors = super().forward(input_ids.masked_fill(~is_word, 0))
        return vectors.masked_fill(~is_word[..., None], 0)


class ElmoTaskWords(nn.Module):
    """x: what a task knows of a word by itself, a vector of the word, of its letters, both, or nothing."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__()
        self.config = config
        filters = config.task_char_filters or []
        self.size = config.task_word_dim + sum(number for _, number in filters)
        if config.task_word_dim:
            self.word_table = ElmoWordTable(config.vocab_size, config.task_word_dim)
        if filters:
            dim = config.task_char_embedding_dim
            self.char_embedding = nn.Embedding(NUM_CHARACTER_IDS, dim, padding_idx=0)
            self.convolutions = nn.ModuleList(nn.Conv1d(dim, number, width) for width, number in filters)

    def forward(self, input_ids: Tensor | None, char_ids: Tensor | None, mask: Tensor) -> Tensor | None:
        """(batch, words), (batch, words, characters), (batch, words) -> (batch, words, size), or None"""
        parts = []
        if self.config.task_word_dim:
            input_ids = checked_input_ids(self.config, input_ids)
            check_shape("input_ids", input_ids, mask)
            parts.append(self.word_table(input_ids))
        if self.config.task_char_filters:
            parts.append(self._from_letters(checked_char_ids(self.config, char_ids)))
        return torch.cat(parts, dim=-1).masked_fill(~mask[:, :, None], 0) if parts else None

    def _from_letters(self, char_ids: Tensor) -> Tensor:
        """Each different word is encoded once."""
        words, place = char_ids.flatten(0, 1).unique(dim=0, return_inverse=True)
        x = self.char_embedding(words).transpose(1, 2)  # (words, dim, characters)
        encoded = torch.cat([F.relu(conv(x).amax(dim=-1)) for conv in self.convolutions], dim=-1)
        return encoded[place].unflatten(0, char_ids.shape[:2])


@dataclass
class ElmoTaskInput:
    """
    x: what the task's RNN reads: `[x; ELMo_in]`, (batch, words, input_size).
    mask: where there is a word, (batch, words).
    at_output: ELMo for the classifier, (batch, words, hidden_size), or None.
    hidden_states: the biLM's layers, if asked for and there is a biLM.
    """

    x: Tensor
    mask: Tensor
    at_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def beside(self, h: Tensor) -> Tensor:
        """h (batch, words, dim) -> `[h; ELMo_out]`"""
        return h if self.at_output is None else torch.cat([h, self.at_output], dim=-1)


class ElmoTaskModel(ElmoPreTrainedModel):
    """What all heads stand on: it reads a task's own words and a biLM's mix of layers, and freezes the biLM.

    A head calls `read` for `[x; ELMo]`, puts its network on `.x`, and its classifier on `.beside(h)`.
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
        self.train()  # freezes what is to be frozen

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
        """Sentences as `ElmoModel` takes them to what the task's RNN reads. `inputs_embeds` are read by the
        biLM alone; the task's own words need the ids."""
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        own = self.task_words(input_ids, char_ids, mask)
        parts = [own] if own is not None else []
        at_output, layers = None, None
        if self.config.reads_elmo:
            if output_hidden_states is None:
                output_hidden_states = self.config.output_hidden_states
            needs_all = output_hidden_states or self.config.elmo_layers == "mix"
            layers = self._layers(input_ids, char_ids, mask, inputs_embeds, needs_all)
            mixed = layers if self.config.elmo_layers == "mix" else layers[-1:]
            if self.input_mix is not None:
                parts.append(self.input_mix(mixed, mask))
            if self.output_mix is not None:
                at_output = self.output_mix(mixed, mask)
        x = torch.cat(parts, dim=-1)
        return ElmoTaskInput(x, mask, at_output, layers if output_hidden_states else None)

    def _layers(
        self,
        input_ids: Tensor | None,
        char_ids: Tensor | None,
        mask: Tensor,
        inputs_embeds: Tensor | None,
        needs_all: bool,
    ) -> tuple[Tensor, ...]:
        """The biLM's layers, each (batch, words, hidden_size), or the top one alone."""
        if self.elmo_cache is not None and inputs_embeds is None:
            if not self.config.freeze_elmo:
                raise ValueError(
                    "a biLM that is tuned cannot be cached; set freeze_elmo, or elmo_cache = None."
                )
            return self.elmo_cache(self.elmo, input_ids, char_ids, mask, needs_all)
        output = self.elmo(
            input_ids=input_ids,
            char_ids=char_ids,
            attention_mask=mask,
            inputs_embeds=inputs_embeds,
            output_hidden_states=needs_all,
            return_dict=True,
        )
        return output.hidden_states if needs_all else (output.last_hidden_state,)

    def with_penalty(self, loss: Tensor) -> Tensor:
        """The task's loss and the mixes' lambda, in training and in evaluation alike."""
        for mix in (self.input_mix, self.output_mix):
            if mix is not None:
                loss = loss + mix.penalty()
        return loss

    def check_labels(self, labels: Tensor, mask: Tensor, number: int) -> None:
        """Labels of words, (batch, words), from 0 to number - 1, or `IGNORED`."""
        check_whole("labels", labels)
        check_shape("labels", labels, mask)
        check_range("labels", labels[mask & (labels != IGNORED)], number - 1)

    def train(self, mode: bool = True) -> "ElmoTaskModel":
        """The config says what is learnt, again and again, for loading makes every weight learnable."""
        super().train(mode)
        config = self.config
        if config.reads_elmo:
            self.elmo.requires_grad_(not config.freeze_elmo)
            self.elmo.train(mode and not config.freeze_elmo)  # a frozen biLM has no dropout
        if config.task_word_dim:
            self.task_words.word_table.requires_grad_(not config.freeze_task_words)
        for mix in (self.input_mix, self.output_mix):
            if mix is not None:
                mix.gamma.requires_grad_(config.mix_gamma)
                mix.weights.requires_grad_(config.elmo_layers == "mix")  # a single layer's share is 1
        return self

    # ---- as the library asks for it

    def get_input_embeddings(self) -> nn.Module:
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
        elif isinstance(module, (nn.LSTM, nn.GRU, ElmoHighwayLSTM)):
            _init_rnn(module)
        else:
            super()._init_weights(module)


def _init_rnn(rnn: nn.LSTM | nn.GRU | ElmoHighwayLSTM) -> None:
    """Each gate's matrix orthogonal, as in He et al. (2017); biases zero, but 1 for an LSTM's forget gate,
    which `ElmoHighwayLSTM` adds itself."""
    gates_dim, cells = 1 if isinstance(rnn, ElmoHighwayLSTM) else 0, rnn.hidden_size
    for name, parameter in rnn.named_parameters():
        if getattr(parameter, "_is_hf_initialized", False):  # it was loaded; a part of it would not tell
            continue
        if parameter.dim() > 1:
            for gate in parameter.split(cells, dim=gates_dim):
                init.orthogonal_(gate)
            continue
        init.zeros_(parameter)
        if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
            parameter[cells : 2 * cells] = 1.0
