"""A lexicon of letters and a vocabulary as ELMoForManyLangs has them, and what its code makes of words: an
independent reference of letter and word ids.

    char2id, word2id = lexicons()
    reference_rows(["Der", "Bär"], char2id, word2id, max_chars=16)
"""

import json

LETTERS = ["<", "b", "o", "s", ">", "D", "e", "r", "B", "ä", "u", "\u0301", "天", "氣", ".", "🙂", "\u3000"]
SPECIALS = ["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"]
WORDS = ["<oov>", "<bos>", "<eos>", "<pad>", "Der", "Bär", ".", "天氣", "bo", "o" * 48, "<bow>", "two words"]


def lexicons():
    """char.dic and word.dic as dictionaries."""
    return (
        {letter: number for number, letter in enumerate([*LETTERS, *SPECIALS])},
        {word: number for number, word in enumerate(WORDS)},
    )


def reference_rows(words, char2id, word2id, max_chars):
    """`read_list` and `create_one_batch` of ELMoForManyLangs for one sentence, without its <bos> and <eos>:
    letter ids (words, max_chars) and word ids (words,)."""
    letter_rows, word_ids = [], []
    for word in words:
        if len(word) + 2 > max_chars:
            word = word[: max_chars - 2]
        word_ids.append(word2id.get(word, word2id["<oov>"]))
        row = [char2id["<pad>"]] * max_chars
        row[0] = char2id["<eow>"]  # the names are swapped in the original
        if word in ("<bos>", "<eos>"):
            row[1], row[2] = char2id[word], char2id["<bow>"]
        else:
            for position, letter in enumerate(word):
                row[position + 1] = char2id.get(letter, char2id["<oov>"])
            row[len(word) + 1] = char2id["<bow>"]
        letter_rows.append(row)
    return letter_rows, word_ids


def letters_json(char2id):
    """The content of `letters.json`, whose ids are those of char.dic shifted by one."""
    names = {"sentence_begin": "<bos>", "sentence_end": "<eos>", "word_begin": "<eow>", "word_end": "<bow>"}
    names |= {"padding": "<pad>", "unknown": "<oov>"}
    shifted = {letter: number + 1 for letter, number in char2id.items()}
    return {"letters": shifted} | {name: shifted[letter] for name, letter in names.items()}


def write_lexicons(folder, words=WORDS):
    """Write vocab.txt and letters.json; return the arguments of ElmoTokenizer for them."""
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in words), encoding="utf-8")
    (folder / "letters.json").write_text(json.dumps(letters_json(lexicons()[0])), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<oov>"}
    return {"vocab_file": folder / "vocab.txt", "letters_file": folder / "letters.json", **names}
