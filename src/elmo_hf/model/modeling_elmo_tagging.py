"""A label for every word: names and parts of speech, and semantic roles.

    model = ElmoForTokenClassification.from_pretrained("org/elmo", id2label=..., task_word_dim=50)
    output = model(**tokenizer(words, is_split_into_words=True, return_tensors="pt"), labels=labels)
    output.loss, output.logits          # logits are log-probabilities, (batch, words, labels)
    model.decode(**encoding)            # the best sequence of labels, (batch, words), -100 at padding

With a CRF the logits at a word are the logarithms of its labels' true probabilities, over all labellings of
the sentence, so that the softmax of a pipeline shows them. The best sequence is not always made of the most
likely labels; `decode` finds it exactly.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils import can_return_tuple

from .checks_elmo import check_range, check_shape
from .configuration_elmo import ElmoConfig
from .crf_elmo import ElmoCRF
from .layers_elmo import ElmoBiRNN, ElmoInterleavedRNN, ElmoVariationalDropout
from .roles_elmo import ElmoRoles
from .task_elmo import ElmoTaskInput, ElmoTaskModel


class ElmoTagger(ElmoTaskModel):
    """What both taggers share: from the RNN's output to labels. A subclass makes the RNN, then the head."""

    rnn: ElmoBiRNN | ElmoInterleavedRNN

    def _make_head(self, dropout: float) -> None:
        config = self.config
        self.dropout = ElmoVariationalDropout(dropout)
        names: Any = config.id2label
        labels = [names[number] for number in range(len(names))]
        self.classifier = nn.Linear(self.rnn.output_size + self.elmo_output_size, len(labels))
        self.crf = ElmoCRF(labels, config.use_crf, config.tag_scheme)
        self.post_init()

    def _scores(self, words: ElmoTaskInput) -> Tensor:
        """(batch, words, labels), before any label knows of its neighbours"""
        h = self.dropout(self.rnn(words.x, words.mask))
        return self.classifier(words.beside(h))

    def _output(self, words: ElmoTaskInput, labels: Tensor | None) -> TokenClassifierOutput:
        if labels is not None:
            self.check_labels(labels, words.mask, len(self.crf.labels))
        logits, loss = self.crf(self._scores(words), words.mask, labels)
        return TokenClassifierOutput(
            loss=self.with_penalty(loss) if loss is not None else None,
            logits=logits,
            hidden_states=words.hidden_states,
        )

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ElmoCRF) and module.learned:
            for parameter in module.parameters():
                init.zeros_(parameter)


class ElmoForTokenClassification(ElmoTagger):
    """A label for every word: the paper's tagger, a biLSTM and a CRF (`use_crf`) or a softmax for each word::

        names = {0: "O", 1: "B-PER", 2: "I-PER"}
        model = ElmoForTokenClassification.from_pretrained("my-elmo", id2label=names)
        loss = model(**batch, labels=labels).loss
        model.decode(**batch)  # the best labels that BIO allows

    With a CRF the logits are the logarithms of the labels' true probabilities, over all labellings of the
    sentence. `pipeline("token-classification")` takes such a model, too.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.rnn = ElmoBiRNN(self.input_size, size, layers, dropout)
        self._make_head(dropout)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> TokenClassifierOutput:
        r"""
        Args:
            labels: (batch, words), from 0 to num_labels - 1; -100 is a label that is not known.

        The other arguments are those of `ElmoModel`. The loss is the mean over all known labels of minus the
        log-probability, and the mixes' penalty.
        """
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds, output_hidden_states)
        return self._output(words, labels)

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The best sequence of labels that the scheme allows, (batch, words), with -100 at padding."""
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds)
        return self.crf.decode(self._scores(words), words.mask)


class ElmoForSemanticRoleLabeling(ElmoTagger):
    """Who did what to whom: for one predicate at a time, each word's role, as labels `B-ARG0 I-ARG0 O B-V`.

    The RNN is the deep one of He et al. (2017): layers with highways that read in turn from the left and from
    the right. The paper has task_hidden_size=300, task_num_layers=8, task_dropout=0.1 and use_crf=False: each
    word has its own softmax, and the best sequence that the BIO scheme allows is found afterwards. With
    role_rules=True it is the best that keeps the rules of roles, too, as in their constrained decoding.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.predicate_embedding = nn.Embedding(2, config.predicate_dim)
        size, layers, dropout = config.task_hidden_size, config.task_num_layers, config.task_dropout
        self.rnn = ElmoInterleavedRNN(self.input_size + config.predicate_dim, size, layers, dropout)
        self._make_head(dropout=0.0)  # each layer's output has had it
        self.roles = ElmoRoles(self.crf.labels) if config.role_rules else None

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        predicate_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> TokenClassifierOutput:
        r"""
        Args:
            predicate_mask: (batch, words), 1 at the predicate and 0 elsewhere. A sentence with several
                predicates is a row for each.
            labels: (batch, words), from 0 to num_labels - 1; -100 is a label that is not known.

        The other arguments are those of `ElmoModel`.
        """
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds, output_hidden_states)
        return self._output(self._with_predicate(words, predicate_mask), labels)

    @torch.no_grad()
    def decode(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        predicate_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The best sequence of labels that the scheme allows, and the rules of roles where the config says
        so, (batch, words), with -100 at padding."""
        words = self.read(input_ids, char_ids, attention_mask, inputs_embeds)
        scores = self._scores(self._with_predicate(words, predicate_mask))
        return self.crf.decode(scores, words.mask, self.roles)

    def _with_predicate(self, words: ElmoTaskInput, predicate_mask: Tensor | None) -> ElmoTaskInput:
        if predicate_mask is None:
            raise ValueError(
                "semantic roles are those of a predicate; pass predicate_mask, 1 at its word and 0 elsewhere."
            )
        check_shape("predicate_mask", predicate_mask, words.mask)
        check_range("predicate_mask", predicate_mask, 1)
        predicate = self.predicate_embedding(predicate_mask.long())
        words.x = torch.cat([words.x, predicate], dim=-1)
        return words


ElmoForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
ElmoForSemanticRoleLabeling.register_for_auto_class("AutoModelForTokenClassification")
