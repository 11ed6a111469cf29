"""A word's vector before any context: of its characters, of a table of words, or of both.

encoder = token_encoder(config)
encoder(ids)          # (..., projection_dim)
encoder.boundaries()  # the vectors of sentence begin and sentence end, (2, projection_dim)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_elmo import ElmoConfig

try:  # faster code for the characters, where the whole package is installed
    from elmo_hf import kernels

    kernels.checks_once  # noqa: B018 (older packages lack it)
except (ImportError, AttributeError):  # a copy of this file, where the package is missing or older
    kernels = None  # type: ignore[assignment]


class ElmoCarry(nn.Linear):
    """The gate of a highway layer. Its bias starts at -2, so that most of the input passes unchanged."""


class ElmoHighway(nn.Module):
    """`y = g * relu(W x + b) + (1 - g) * x`, with the gate `g = sigmoid(W_g x + b_g)`. The gate's name
    `carry` is that of the original checkpoints."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.carry = ElmoCarry(dim, dim)
        self.transform = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.carry(x))
        return gate * F.relu(self.transform(x)) + (1 - gate) * x


class ElmoCharacterEncoder(nn.Module):
    """A word's characters to its vector, which does not depend on the sentence: convolutions, each filter's
    maximum over the word, highway layers, and a projection."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__()
        self.config = config
        self.char_embedding = nn.Embedding(config.num_characters, config.char_embedding_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embedding_dim, number, width) for width, number in config.char_filters or []
        )
        dim, has_projection = config.num_filters, config.has_char_projection
        self.highways = nn.ModuleList(ElmoHighway(dim) for _ in range(config.num_highway_layers))
        dim += config.word_embedding_dim
        self.projection = nn.Linear(dim, config.projection_dim) if has_projection else nn.Identity()

    def forward(self, char_ids: Tensor) -> Tensor:
        """(..., characters) -> (..., projection_dim)"""
        words = kernels.encode(self, char_ids) if kernels else None
        return words if words is not None else self.from_embeddings(self.char_embedding(char_ids))

    def from_embeddings(self, char_vectors: Tensor) -> Tensor:
        """(..., characters, char_embedding_dim) -> (..., projection_dim)"""
        return self.projection(self.from_characters(char_vectors))

    def from_characters(self, char_vectors: Tensor) -> Tensor:
        """(..., characters, char_embedding_dim) -> (..., filters)"""
        x = char_vectors.flatten(0, -3).transpose(1, 2)  # (words, char_embedding_dim, characters)
        activation = torch.tanh if self.config.char_activation == "tanh" else F.relu
        words = torch.cat([activation(conv(x).amax(dim=-1)) for conv in self.convolutions], dim=-1)
        for highway in self.highways:
            words = highway(words)
        return words.unflatten(0, char_vectors.shape[:-2])

    def boundaries(self) -> Tensor:
        """The vectors of sentence begin and sentence end, (2, projection_dim)."""
        return self(self.boundary_ids())

    def boundary_ids(self) -> Tensor:
        """The rows of `char_ids` of sentence begin and sentence end, (2, characters)."""
        sentence_begin, sentence_end, word_begin, word_end, padding = self.config.boundary_characters or []
        device = self.char_embedding.weight.device
        rows = torch.full((2, self.config.max_characters_per_token), padding, device=device)
        rows[0, :3] = rows.new_tensor([word_begin, sentence_begin, word_end])
        rows[1, :3] = rows.new_tensor([word_begin, sentence_end, word_end])
        return rows


class ElmoWordAndCharacterEncoder(ElmoCharacterEncoder):
    """A table of words beside the characters: the projection reads `[word; characters]`."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__(config)
        self.word_embedding = nn.Embedding(config.vocab_size, config.word_embedding_dim)

    def forward(self, char_ids: Tensor) -> Tensor:
        """(..., characters and 1 + the word's id) -> (..., projection_dim)"""
        encoded = kernels.encode(self, char_ids) if kernels else None
        if encoded is not None:
            return encoded
        characters = self.from_characters(self.char_embedding(char_ids[..., :-1]))
        words = self.word_embedding((char_ids[..., -1] - 1).clamp(min=0))  # 0 stands where there is no word
        return self.projection(torch.cat([words, characters], dim=-1))

    def boundary_ids(self) -> Tensor:
        """The rows of `char_ids` of sentence begin and sentence end, (2, characters + 1)."""
        rows = super().boundary_ids()
        words = rows.new_tensor([self.config.bos_token_id, self.config.eos_token_id])
        return torch.cat([rows, 1 + words[:, None]], dim=1)


class ElmoWordEncoder(nn.Module):
    """A table of word vectors in place of the characters, which a few models were trained with."""

    def __init__(self, config: ElmoConfig) -> None:
        super().__init__()
        self.config = config
        dim, has_projection = config.projection_dim, config.word_embedding_dim > 0
        self.word_embedding = nn.Embedding(config.vocab_size, config.word_embedding_dim or dim)
        self.projection = nn.Linear(config.word_embedding_dim, dim) if has_projection else nn.Identity()

    def forward(self, word_ids: Tensor) -> Tensor:
        """(...) -> (..., projection_dim)"""
        is_padding = word_ids.eq(self.config.pad_token_id or 0)  # this id is one past the table
        return self.projection(self.word_embedding(word_ids.masked_fill(is_padding, 0)))

    def boundaries(self) -> Tensor:
        ids = [self.config.bos_token_id, self.config.eos_token_id]
        return self(torch.tensor(ids, device=self.word_embedding.weight.device))


def token_encoder(config: ElmoConfig) -> ElmoCharacterEncoder | ElmoWordEncoder:
    """The encoder that the config describes."""
    if config.token_encoder == "words":
        return ElmoWordEncoder(config)
    return ElmoWordAndCharacterEncoder(config) if config.reads_word_column else ElmoCharacterEncoder(config)
