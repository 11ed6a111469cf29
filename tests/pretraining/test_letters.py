"""Perplexity, vectors and training of models that read letters of a lexicon, and words beside them."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from elmo_hf import ElmoTokenizer
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Plan, Windows
from elmo_hf.embedding.job import embed
from elmo_hf.errors import ElmoError
from elmo_hf.loading import load_language_model
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.perplexity import perplexity
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import set_dropout, with_vocabulary
from tests.helpers.letter_models import KINDS, letter_model

SENTENCES = [["Der", "Bär", "o" * 60, "."], ["天氣"], ["zz", "🙂", "<bos>", "Der", "Der"]]


def plain_losses(model, tokenizer, sentences):
    """The mean cross entropy of each direction, from the layers of one sentence at a time and the softmax."""
    losses = [[], []]
    for words in sentences:
        encoding = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            top = model.elmo(**encoding, keep_boundaries=True).last_hidden_state[0]
        forward, backward = top.chunk(2, dim=-1)
        ids = [tokenizer.bos_token_id, *encoding["input_ids"][0].tolist(), tokenizer.eos_token_id]
        for losses_of, hidden, labels in (
            (losses[0], forward[:-1], ids[1:]),
            (losses[1], backward[1:], ids[:-1]),
        ):
            logits = hidden @ model.lm_head.weight.T + model.lm_head.bias
            losses_of += torch.nn.functional.cross_entropy(
                logits, torch.tensor(labels), reduction="none"
            ).tolist()
    return [np.mean(direction) for direction in losses]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("states", ["zero", "carried"])
def test_perplexity(tmp_path, kind, states):
    model, tokenizer = letter_model(tmp_path, kind)
    rows = {"rows": len(SENTENCES)} if states == "carried" else {}  # a row for each sentence
    result = perplexity(model, SENTENCES, tokenizer, states=states, **rows)
    expected = plain_losses(model, tokenizer, SENTENCES)
    assert [result.forward_loss, result.backward_loss] == pytest.approx(expected, rel=1e-5)
    assert result.tokens == 13
    assert result.unknown == pytest.approx(0.3)  # a word of 60 letters is cut, to 14 here; so are two others


@pytest.mark.parametrize("kind", KINDS)
def test_vectors(tmp_path, kind):
    model, tokenizer = letter_model(tmp_path, kind)
    vectors = embed(SENTENCES, tmp_path / "vectors", model, tokenizer=tokenizer, progress=False)
    for words, sentence in zip(SENTENCES, vectors, strict=True):
        with torch.no_grad():
            expected = model.elmo(**tokenizer(words, is_split_into_words=True, return_tensors="pt"))
        np.testing.assert_allclose(sentence.vectors, expected.last_hidden_state[0], atol=2e-6)
    with pytest.raises(ElmoError, match="needs its tokenizer"):
        embed(SENTENCES, tmp_path / "other", model, progress=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_trains_on(tmp_path, kind):
    """The first loss is that of perplexity, and a few steps lower it."""
    for saved in letter_model(tmp_path / "lexicons", kind):
        saved.save_pretrained(tmp_path / "model")
    model, tokenizer = load_language_model(tmp_path / "model")
    expected = plain_losses(model, tokenizer, SENTENCES[:1])
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES[0]) + "\n", encoding="utf-8")
    specials = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token)
    words = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
    vocabulary = Vocabulary(words, specials=specials, max_letters=14)
    encoder = Encoder(vocabulary, token_encoder=model.config.token_encoder, tokenizer=tokenizer)
    settings = Settings(rows=1, window=5, dropout=0.0, learning_rate=0.1, restart_rows=0.0)
    set_dropout(model, 0.0)
    learner = Learner(model, settings, Accelerator(cpu=True))
    [window] = Windows(Source(tmp_path / "text.txt"), encoder, Plan(rows=1, steps=5, epochs=1))
    losses = [learner.update([window], torch.tensor([5, 5]), step) for step in range(4)]
    first = [losses[0]["forward_loss"], losses[0]["backward_loss"]]
    assert first == pytest.approx(expected, rel=1e-5)
    assert losses[3]["loss"] < losses[0]["loss"]


def test_another_vocabulary_for_the_softmax_and_the_table(tmp_path):
    model, tokenizer = letter_model(tmp_path, "letters and words")
    (tmp_path / "new.txt").write_text("<S>\n</S>\n<UNK>\nneu\nBär\n", encoding="utf-8")
    new_model, new, *_ = with_vocabulary(model, tokenizer, str(tmp_path / "new.txt"))
    old_ids = tokenizer.convert_tokens_to_ids(["<bos>", "<eos>", "<oov>", "Bär"])
    for name in ("lm_head.weight", "lm_head.bias", "elmo.token_encoder.word_embedding.weight"):
        assert torch.equal(new_model.state_dict()[name][[0, 1, 2, 4]], model.state_dict()[name][old_ids])
    texts = [["Bär", "zz"]]
    vectors = [
        m.eval().elmo(**t(texts, is_split_into_words=True, return_tensors="pt")).last_hidden_state
        for m, t in ((model, tokenizer), (new_model, new))
    ]
    assert torch.equal(*vectors)


def more_letters(tokenizer):
    lexicon = copy.deepcopy(tokenizer.lexicon)
    lexicon.content["letters"]["ß"] = 99
    return ElmoTokenizer(None, 16, letters_file=lexicon)


@pytest.mark.parametrize(
    ("kind", "other", "message"),
    [
        ("letters", lambda t: ElmoTokenizer(None, 16), "boundary_characters"),
        ("letters", more_letters, "num_characters 24, and its tokenizer has the id 99;"),
        ("letters", lambda t: ElmoTokenizer(None, 17, letters_file=t.lexicon), "max_characters_per_token 16"),
        (
            "letters and words",
            lambda t: ElmoTokenizer(None, 16, letters_file=t.lexicon),
            "char_ids_length 17",
        ),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(tmp_path, kind, other, message):
    model, tokenizer = letter_model(tmp_path / "lexicons", kind)
    model.save_pretrained(tmp_path / "model")
    other(tokenizer).save_pretrained(tmp_path / "model")
    with pytest.raises(ElmoError, match=rf"{message}.* them as one\.$"):
        load_language_model(tmp_path / "model")
