"""Word senses by nearest neighbours, and neighbours in context, on tiny texts: compared with naive
versions that read one sentence at a time."""

from collections import Counter

import numpy as np
import pytest

from tests.helpers.probing_naive import (
    cosine,
    mean,
    naive_first,
    naive_occurrences,
    naive_scores,
    naive_words,
    of_lemma,
)

pytest_plugins = ["tests.helpers.probing_fixtures"]

# ---- word senses


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_averages_of_senses(probes, reader, naive_reader, texts, task, layer):
    senses = probes.senses.count_senses(task.semcor)
    averages = probes.senses.average_senses(reader, task.semcor, senses)
    expected = {
        key: mean(vectors) for key, vectors in naive_occurrences(naive_reader, texts.semcor, layer).items()
    }
    assert sorted(senses.keys) == sorted(expected)
    assert averages.shape == (3, len(expected), 16)
    for number, key in enumerate(senses.keys):
        np.testing.assert_allclose(averages[layer, number], expected[key], atol=1e-5, err_msg=key)


def test_averages_do_not_depend_on_the_chunks(probes, reader, task, monkeypatch):
    senses = probes.senses.count_senses(task.semcor)
    whole = probes.senses.average_senses(reader, task.semcor, senses)
    monkeypatch.setattr(probes.vectors, "CHUNK_VALUES", 20 * 3 * 16)
    chunks = list(reader.chunks([sentence.words for sentence in task.semcor], ""))
    assert len(chunks) > 5
    assert [chunk.first for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
    np.testing.assert_allclose(probes.senses.average_senses(reader, task.semcor, senses), whole, atol=1e-6)


def test_scores_of_neighbours(probes, reader, naive_reader, texts, task):
    result = probes.senses.probe_senses([reader], task)
    for layer in range(3):
        occurrences = naive_occurrences(naive_reader, texts.semcor, layer)
        averages = {key: mean(vectors) for key, vectors in occurrences.items()}

        def nearest(words, start, end, lemma, pos, layer=layer, occurrences=occurrences, averages=averages):
            among = [key for key in averages if of_lemma(key, lemma, pos)]
            if not among:
                return naive_first(lemma, pos)
            vector = mean(naive_reader(words)[layer][start:end])
            among.sort(key=lambda key: (-len(occurrences[key]), key))
            return max(among, key=lambda key: round(cosine(vector, averages[key]), 6))

        expected = naive_scores(texts.tests, nearest)
        assert result["f1"][f"trained, layer {layer}"] == pytest.approx(expected, abs=0.006)
    assert result["f1"]["trained, layer 1"] != result["f1"]["trained, layer 0"]


def test_scores_without_a_model(probes, texts, task):
    occurrences = Counter(
        key for sentence in texts.semcor for _, _, item in naive_words(sentence)[1] for key in item[3]
    )

    def frequent(words, start, end, lemma, pos):
        among = sorted((-occurrences[key], key) for key in occurrences if of_lemma(key, lemma, pos))
        return among[0][1] if among else naive_first(lemma, pos)

    senses = probes.senses.count_senses(task.semcor)
    first = probes.senses.score(task, probes.senses.answer_first(task))
    most = probes.senses.score(task, probes.senses.answer_frequent(task, senses))
    expected = naive_scores(texts.tests, lambda words, start, end, lemma, pos: naive_first(lemma, pos))
    assert first == pytest.approx(expected, abs=0.006)
    assert most == pytest.approx(naive_scores(texts.tests, frequent), abs=0.006)
    assert first != most
    counts = probes.senses.counts(task, senses)
    assert counts["not_in_semcor"] == 2  # harbour and nasdaq
    assert counts["without_any_answer"] == 1
    assert counts["instances"] == {"senseval2": 8, "senseval3": 7, "semeval2007": 6, "semeval2013": 6}
    assert counts["instances_in_all"] == 27
    assert counts["semcor"]["occurrences"] == 30
    assert counts["highest_possible_f1"] == round(100 * 26 / 27, 2)  # all but nasdaq


def test_of_senses_equally_near_the_more_frequent_one_is_taken(probes):
    averages = np.array([[0, 1], [2, 2 + 1e-7], [1, 1], [3, 3]], dtype=np.float32)
    assert probes.senses.nearest(np.array([5, 5], dtype=np.float32), averages) == 1
    assert probes.senses.nearest(np.array([0, 5], dtype=np.float32), averages) == 0
    assert probes.senses.nearest(np.zeros(2, dtype=np.float32), averages) == 0


# ---- neighbours


def test_neighbours_in_context(probes, reader, naive_reader, texts, semcor):
    numbers = [number for number, sentence in enumerate(semcor) if "play" in sentence.words]
    source, other = (semcor[number].words for number in numbers[:2])
    text = [" ".join(f"*{word}" if word == "play" else word for word in words) for words in (source, other)]
    query = probes.neighbours.find_query(text[0], semcor)
    assert (query.sentence, query.word) == (numbers[0], "play")
    cosines = probes.neighbours.cosines_in_context(reader, [query], semcor)[0]

    own = naive_reader(source)[-1][source.index("play")]
    rows = []
    for number, sentence in enumerate(texts.semcor):
        words, _ = naive_words(sentence)
        vectors = naive_reader(words)[-1]
        rows += [(cosine(own, vector), number, place) for place, vector in enumerate(vectors)]
    np.testing.assert_allclose(cosines, [row[0] for row in rows], atol=1e-5)

    begins = probes.vectors.starts_of([sentence.words for sentence in semcor])
    neighbours = probes.neighbours.nearest_in_context(cosines, query, semcor, begins)
    expected, listed = [], [source]
    for value, number, place in sorted(rows, key=lambda row: -row[0]):
        if semcor[number].words not in listed and len(expected) < 4:
            listed.append(semcor[number].words)
            expected.append((semcor[number].words, place, pytest.approx(value, abs=1e-4)))
    assert [(word["words"], word["place"], word["cosine"]) for word in neighbours] == expected
    rank = probes.neighbours.rank_in_context(cosines, text[1], query, semcor)
    cosine_of_other = next(row[0] for row in rows if row[1:] == (numbers[1], other.index("play")))
    assert rank == 1 + sum(row[0] > cosine_of_other + 1e-6 for row in rows if row[1] != numbers[0])
    assert probes.neighbours.rank_in_context(cosines, "not *there", query, semcor) is None


def test_a_sentence_that_is_not_in_the_text_stands_for_itself(probes, semcor):
    query = probes.neighbours.find_query("Nobody ever *play here", semcor)
    assert (query.words, query.place, query.sentence) == (["Nobody", "ever", "play", "here"], 2, None)


def test_neighbours_without_context(probes, reader, naive_reader, texts, semcor):
    neighbours = probes.neighbours.nearest_without_context(reader, ["play", "Here", "play"], semcor)
    assert list(neighbours) == ["play", "Here"]
    words = {word for sentence in texts.semcor for word in naive_words(sentence)[0] if word.isalpha()}
    own = {word: naive_reader([word])[0][0] for word in sorted(words | {"Here"})}
    for word, others in neighbours.items():
        near = sorted(
            (other for other in own if other.lower() != word.lower()),
            key=lambda o: -cosine(own[o], own[word]),
        )
        assert others == near[:10]
    assert "here" not in neighbours["Here"]


def test_a_sentence_in_a_table(probes):
    words = ["He", "did", "n't", "say", ",", "“", "I", "|", "we", "”", "_", "*", "that"]
    words += ["it", "'s", "the", "play", ",", "and", "*"]
    text = probes.neighbours.excerpt({"words": words, "place": words.index("play")})
    assert text == "He didn't say, “ I \\| we ” \\_ \\* that it's the **play**, and \\*"
    long = ["word"] * 50
    assert probes.neighbours.excerpt({"words": long, "place": 25}) == (
        "… " + "word " * 11 + "**word**" + " word" * 11 + " …"
    )
