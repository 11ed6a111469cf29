"""How the code in folders saved by version 0.1.0 calls `elmo_hf.kernels`.

Written down from that version's `modeling_elmo.py`, reduced to what calls the kernels or is read by them. It
must not follow later changes of the package, since saved folders do not either.
"""

import torch
from torch import nn
from torch.nn import functional as F

from elmo_hf import kernels
from elmo_hf.model.modeling_elmo import lstm


class Carry(nn.Linear):
    pass


class Highway(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.carry = Carry(dim, dim)
        self.transform = nn.Linear(dim, dim)

    def forward(self, x):
        gate = torch.sigmoid(self.carry(x))
        return gate * F.relu(self.transform(x)) + (1 - gate) * x


class CharacterEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.char_embedding = nn.Embedding(262, config.char_embedding_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.char_embedding_dim, number, width) for width, number in config.char_filters
        )
        self.highways = nn.ModuleList(Highway(config.num_filters) for _ in range(config.num_highway_layers))
        self.projection = nn.Linear(config.num_filters, config.projection_dim)

    def forward(self, char_ids):
        words = kernels.encode(self, char_ids) if kernels else None
        return words if words is not None else self.from_embeddings(self.char_embedding(char_ids))

    def from_embeddings(self, letters):
        x = letters.flatten(0, -3).transpose(1, 2)
        activation = torch.tanh if self.config.char_activation == "tanh" else F.relu
        words = torch.cat([activation(conv(x).amax(dim=-1)) for conv in self.convolutions], dim=-1)
        for highway in self.highways:
            words = highway(words)
        return self.projection(words).unflatten(0, letters.shape[:-2])


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        cells, output = config.lstm_dim, config.output_dim
        self.input_weight = nn.Parameter(torch.randn(2, output, 4 * cells) * 0.3)
        self.recurrent_weight = nn.Parameter(torch.randn(2, output, 4 * cells) * 0.3)
        self.bias = nn.Parameter(torch.randn(2, 4 * cells) * 0.3)
        projection = torch.randn(2, cells, output) * 0.3
        self.projection = nn.Parameter(projection) if config.has_lstm_projection else None

    def forward(self, x, mask, h, c):
        weights = (self.input_weight, self.recurrent_weight, self.bias, self.projection)
        fast = kernels.choose_lstm(x, *weights) if kernels else None
        clips = self.config.cell_clip, self.config.proj_clip
        outputs, h, c = (fast or lstm)(x, mask, h, c, *weights, *clips)
        return outputs, h, c


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_encoder = CharacterEncoder(config)
        self.layer = Layer(config)

    def forward(self, char_ids):
        """(batch, words, characters) -> (2, batch, words, output_dim)"""
        words = self.token_encoder(char_ids)
        x, mask = torch.stack([words, words.flip(1)]), (char_ids > 0).any(dim=-1)
        after_first = kernels.constant(self, self.after_first) if kernels else self.after_first()
        h, c = (state.expand(-1, len(words), -1).to(x) for state in after_first)
        return self.layer(x, torch.stack([mask, mask.flip(1)]), h, c)[0]

    def after_first(self):
        """The states after a first word; a constant of the weights."""
        first = self.layer.bias.new_ones(2, 1, 1, self.config.projection_dim)
        config = self.config
        h, c = first.new_zeros(2, 1, config.output_dim), first.new_zeros(2, 1, config.lstm_dim)
        return self.layer(first, first.new_ones(2, 1, 1).bool(), h, c)[1:]
