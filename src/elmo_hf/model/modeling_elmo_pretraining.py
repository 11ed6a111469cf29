"""The bidirectional language model that an ELMo is trained as.

    model = ElmoForPreTraining.from_pretrained("org/elmo")
    output = model(**tokenizer(["Ice cream is cold ."], return_tensors="pt"))
    output.loss, output.forward_loss, output.backward_loss

The forward half at a word predicts the next word, the backward half the word before it:

    loss = -1/2 mean log p(w_(t+1) | w_1 ... w_t) - 1/2 mean log p(w_(t-1) | w_t ... w_n)

The loss is that of the full softmax. It is computed for a few words at a time, so that a vocabulary of
800,000 words fits in memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput, can_return_tuple

from .checks_elmo import IGNORED, check_labels, check_no_attentions, word_mask
from .configuration_elmo import ElmoConfig
from .modeling_elmo import ElmoModel, ElmoPreTrainedModel, States

LOGITS_AT_ONCE = 2**25  # numbers of a batch of logits, 128 MB in float32


@dataclass
class ElmoForPreTrainingOutput(ModelOutput):
    """What `ElmoForPreTraining` returns.

    Args:
        loss: the mean of forward_loss and backward_loss, if there are labels.
        forward_loss, backward_loss: mean cross entropy of a word given the words before it, or after it.
        forward_logits, backward_logits: with `output_logits`, (batch, words, vocab_size): at each word, the
            scores of the next word, or of the word before it.
        hidden_states, states: as in `ElmoModelOutput`.
    """

    loss: Tensor | None = None
    forward_loss: Tensor | None = None
    backward_loss: Tensor | None = None
    forward_logits: Tensor | None = None
    backward_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    states: States | None = None


class ElmoForPreTraining(ElmoPreTrainedModel):
    """The bidirectional language model that an ELMo is trained as. Both directions share a softmax.

    >>> model = ElmoForPreTraining.from_pretrained(TINY).eval()
    >>> output = model(**batch)
    >>> bool(output.forward_loss > 0), bool(output.backward_loss > 0)  # by the full softmax
    (True, True)

    The forward half at a word predicts the next word, the backward half the word before it.
    """

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.elmo = ElmoModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(config.output_dim, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        char_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        states: States | None = None,
        output_states: bool = False,
        output_hidden_states: bool | None = None,
        output_logits: bool | None = None,
        output_attentions: bool | None = None,
    ) -> ElmoForPreTrainingOutput:
        """Score the words of sentences.

        Args:
            labels: ids of the words themselves, (batch, words); -100 is a word not to be predicted. Which
                vector predicts which word is worked out here. The default is `input_ids`.
            output_logits: return the scores of all words at every place, which takes much memory with a large
                vocabulary. By default they are returned only if there is no loss.

        The other arguments are those of `ElmoModel`. In a sentence of n words each direction predicts n + 1:
        the forward one the words and `</S>`, the backward one the words and `<S>`.

        Returns:
            An `ElmoForPreTrainingOutput`.
        """
        check_no_attentions(output_attentions)
        mask = word_mask(self.config, input_ids, char_ids, attention_mask, inputs_embeds)
        labels = input_ids if labels is None else labels
        output = self.elmo(
            inputs_embeds=self.elmo.word_vectors(input_ids, char_ids, inputs_embeds),
            attention_mask=mask,
            states=states,
            output_states=output_states,
            output_hidden_states=output_hidden_states,
            keep_boundaries=True,
            return_dict=True,
        )
        forward_half, backward_half = self.dropout(output.last_hidden_state).chunk(2, dim=-1)
        losses: tuple[Tensor | None, Tensor | None] = (None, None)
        if labels is not None:
            check_labels(labels, mask, self.config.vocab_size)
            losses = self._losses(forward_half, backward_half, mask, labels.long())
        if output_logits is None:
            output_logits = labels is None
        words = slice(1, -1)
        return ElmoForPreTrainingOutput(
            loss=0.5 * (losses[0] + losses[1]) if losses[0] is not None and losses[1] is not None else None,
            forward_loss=losses[0],
            backward_loss=losses[1],
            forward_logits=self.lm_head(forward_half[:, words]) if output_logits else None,
            backward_logits=self.lm_head(backward_half[:, words]) if output_logits else None,
            hidden_states=output.hidden_states and tuple(layer[:, words] for layer in output.hidden_states),
            states=output.states,
        )

    def _losses(
        self, forward_half: Tensor, backward_half: Tensor, mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        begin = labels.new_full((len(labels), 1), self.config.bos_token_id or 0)
        end = labels.new_full((len(labels), 1), self.config.eos_token_id or 0)
        ids = torch.cat([begin, labels, end], dim=1)
        not_end = F.pad(F.pad(mask, (1, 0), value=True), (0, 1), value=False)
        not_begin = F.pad(F.pad(mask, (0, 1), value=True), (1, 0), value=False)
        # In each row, every place but the end predicts the next word, and every place but the beginning the
        # one before it.
        forward_loss = self._mean_loss(forward_half[not_end], ids[not_begin])
        backward_loss = self._mean_loss(backward_half[not_begin], ids[not_end])
        return forward_loss, backward_loss

    def _mean_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return self.summed_loss(hidden, targets) / (targets != IGNORED).sum().clamp(min=1)

    def summed_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The cross entropy of the full softmax, summed: (words, output_dim), (words,) -> ().

        It is computed for a few words at a time, in the forward and in the backward pass. A target of -100
        does not count.
        """
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        size = max(1, LOGITS_AT_ONCE // self.config.vocab_size)
        for batch in zip(hidden.split(size), targets.split(size), strict=True):
            total = total + checkpoint(self._batch_loss, *batch, use_reentrant=False)
        return total

    def _batch_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.lm_head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, targets, reduction="sum")


ElmoForPreTraining.register_for_auto_class("AutoModelForPreTraining")
