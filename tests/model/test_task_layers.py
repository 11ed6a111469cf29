"""The RNNs of task models: their numbers, their dropout, and that padding changes nothing."""

import pytest
import torch
from torch import nn

from elmo_hf.model.cells_elmo import ElmoHighwayLSTM
from elmo_hf.model.layers_elmo import ElmoBiRNN, ElmoInterleavedRNN, ElmoVariationalDropout

MASKS = torch.tensor(
    [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
).bool()


def make(kind, **options):
    torch.manual_seed(0)
    if kind == "interleaved":
        rnn = ElmoInterleavedRNN(6, 4, 3, **options)
        for parameter in rnn.parameters():
            nn.init.normal_(parameter, std=0.5)
        return rnn.eval()
    return ElmoBiRNN(6, 4, num_layers=2, cell=kind, **options).eval()


@pytest.mark.parametrize("kind", ["lstm", "gru", "interleaved"])
def test_the_position_of_padding_changes_nothing(kind):
    """A row with padding gives what its words alone give, whatever fills the padding."""
    rnn, x = make(kind), torch.randn(5, 5, 6)
    states = rnn(x, MASKS)
    assert states.shape == (5, 5, rnn.output_size)
    for row, words in enumerate(MASKS):
        alone = rnn(x[row][words][None], torch.ones(1, words.sum(), dtype=torch.bool))[0]
        torch.testing.assert_close(states[row][words], alone)
        assert (states[row][~words] == 0).all()
    noisy = x.masked_fill(~MASKS[:, :, None], 1000.0)
    torch.testing.assert_close(rnn(noisy, MASKS), states)


@pytest.mark.parametrize("kind", ["lstm", "gru", "interleaved"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 3)])
def test_no_rows_no_words_and_padding_alone(kind, shape):
    states = make(kind)(torch.randn(*shape, 6), torch.zeros(shape, dtype=torch.bool))
    assert states.shape == (*shape, make(kind).output_size)
    assert (states == 0).all()


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_stack_equals_torchs(kind):
    rnn, x = make(kind), torch.randn(2, 5, 6)
    reference = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](
        6, 4, num_layers=2, batch_first=True, bidirectional=True
    )
    weights = {
        f"{name.removesuffix('_l0')}_l{number}{end}": value
        for layers, end in ((rnn.forward_layers, ""), (rnn.backward_layers, "_reverse"))
        for number, layer in enumerate(layers)
        for name, value in layer.state_dict().items()
    }
    reference.load_state_dict(weights)
    torch.testing.assert_close(rnn(x, torch.ones(2, 5, dtype=torch.bool)), reference(x)[0])


def highway_by_hand(layer, x):
    """He et al. (2017), one word and one number at a time: (words, input) -> (words, cells)"""
    cells, h, c, outputs = layer.hidden_size, [0.0] * layer.hidden_size, [0.0] * layer.hidden_size, []
    into, back, bias = layer.input_weight.tolist(), layer.recurrent_weight.tolist(), layer.bias.tolist()

    def sigmoid(value):
        return 1 / (1 + torch.tensor(-value, dtype=torch.float64).exp().item())

    def tanh(value):
        return torch.tensor(value, dtype=torch.float64).tanh().item()

    for word in x.tolist():

        def weigh(gate, number, word=word, h=tuple(h)):
            column = gate * cells + number
            total = sum(value * row[column] for value, row in zip(word, into, strict=True))
            if gate == 5:
                return total
            return total + bias[column] + sum(value * row[column] for value, row in zip(h, back, strict=True))

        for n in range(cells):
            i, j, f, o, r, carry = (weigh(gate, n) for gate in range(6))
            c[n] = sigmoid(f + 1) * c[n] + sigmoid(i) * tanh(j)
            h[n] = sigmoid(r) * sigmoid(o) * tanh(c[n]) + (1 - sigmoid(r)) * carry
        outputs.append(list(h))
    return torch.tensor(outputs, dtype=torch.float64)


def test_highway_layers_are_the_papers_and_read_in_turn_from_both_sides():
    rnn = make("interleaved").double()
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    expected = x[0]
    for number, layer in enumerate(rnn.layers):
        if number == 1:
            expected = highway_by_hand(layer, expected.flip(0)).flip(0)
        else:
            expected = highway_by_hand(layer, expected)
    torch.testing.assert_close(rnn(x, torch.ones(1, 4, dtype=torch.bool))[0], expected)


def test_variational_dropout_draws_once_a_row():
    torch.manual_seed(0)
    dropout, x = ElmoVariationalDropout(0.5), torch.ones(8, 5, 50)
    dropped = dropout(x)
    assert (dropped == dropped[:, :1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert not (dropped[0] == dropped[1]).all()
    assert torch.equal(dropout.eval()(x), x)


def test_a_highway_layer_drops_the_same_cells_at_every_word():
    torch.manual_seed(0)
    layer = ElmoHighwayLSTM(6, 40, dropout=0.5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    dropped = layer(torch.randn(3, 5, 6)) == 0
    assert (dropped == dropped[:, :1]).all()
    assert 0.3 < dropped.float().mean() < 0.7
    assert not (dropped[0] == dropped[1]).all()


@pytest.mark.parametrize("kind", ["lstm", "gru", "interleaved"])
def test_gradients_are_those_of_small_changes(kind):
    """The highway layers' gradient is written by hand; dropout and padding have their part in it."""
    rnn = make(kind, dropout=0.3).double().train()

    def read(x, *_):
        torch.manual_seed(1)  # the same dropout
        return rnn(x, MASKS)

    x = torch.randn(5, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(read, (x, *rnn.parameters()), fast_mode=True)
