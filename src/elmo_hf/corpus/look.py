"""A look at the first lines of a text: is it what the options say?

    doubts(Source("news/*.txt"))                # ["news/a.txt looks like raw text: ...; use --raw."]
    training_doubts(source, vocabulary)         # the same, or a large share of words outside of a vocabulary
    model_doubts(source, words, "my-elmo")      # what is said before a trained model reads a text

A doubt is one sentence that names the option to use. The look reads some hundred lines, whatever the size of
the text, and is silent about what it cannot tell.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise

import regex

from elmo_hf.corpus.sentences import split_sentences
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import BEGIN, END, SPECIALS, Vocabulary, WordCounts
from elmo_hf.errors import quoted

MOST_LINES, MOST_CHARACTERS, LONGEST_LINE = 500, 100_000, 20_000
MOST_HELDOUT = 10_000  # sentences
# A word with the sign behind it, such as `bank.` and `(said,`; names of code such as `x.y,` are none.
_GLUED = regex.compile(r"[\"“‘(\[«„¿¡']*[\p{L}\p{M}][\p{L}\p{M}'’-]+[.,;:?!…।،؟。，]+[\"”’)\]»“']*")
_GLUED_END = regex.compile(r".*[.?!…।؟。][\"”’)\]»“']*")
_APART = regex.compile(r"[.,;?!…।،؟。，]|\.\.\.|''|``")
_STOP = regex.compile(r"[.,।،。，]")
_CODE = regex.compile(
    r".*[\p{L}\p{N}_\])](?:\(|=|\[|_|::|->|\{)|[{}=<>+*/%&|();]+|.*[)\]\"'\d]?[{]|.*[)\]\"'\d];"
)
# Scripts that are written without blanks between words.
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー々]"
)
_IDEOGRAPH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_TAG = regex.compile(
    r"<!doctype html|</?(?:html|head|body|div|span|p|br|a|b|i|em|strong|table|tr|td|th|ul|ol|li|h[1-6]|img|"
    r"script|style|doc|text|page|title|ref|math|sub|sup|TEI)(?:\s[^<>]*)?/?>",
    regex.IGNORECASE,
)
_ELEMENT = regex.compile(
    r"\s*<(?!(?i:/?s|unk|bos|eos|pad)>)/?[A-Za-z][\w:.-]*(?:\s+[\w:.-]+=\"[^\"]*\")*\s*/?>.*(?:>|\w)"
)
_LABEL = regex.compile(r"O|[BIESLU]-\S+")
_FIELD_END = regex.compile(r"(?<!\d)[,;](?=\S)|[,;](?=[^\s\d])")  # no comma of prose, nor that of 1,000
_SENTENCE_END = regex.compile(r".*[.?!…:;।؟。！？][\"”’)\]»“']*")


def doubts(source: Source) -> list[str]:
    """What the first lines of a corpus seem to be and the options do not say, each in one sentence."""
    return _doubts(source, Sample.of(source))


def _doubts(source: Source, sample: "Sample", splits: bool = True) -> list[str]:
    """`splits`: whether --raw is of use."""
    if source.is_words or not sample.lines:
        return []
    name = quoted(source.name)
    form = _form(sample.lines) if source.is_plain_text else None
    if form is not None:
        return [f"{name} looks like {form}."]
    if sample.is_code:
        return []
    if sample.is_unspaced(source):
        return [
            f"{name} has no blanks between its words, such as {sample.longest_word(source)!r}; separate them "
            "first with a word segmenter for its language, as --raw splits only at punctuation."
        ]
    return [f"{name} {doubt}" for doubt in (*_splitting(sample, source, splits), *_wrapping(sample))]


def training_doubts(source: Source, vocabulary: Vocabulary) -> list[str]:
    """The doubts about a text that a model is trained on."""
    own_share = None
    if vocabulary.counts is not None:
        words = sum(vocabulary.counts) - sum(vocabulary.counts[vocabulary.ids[word]] for word in (BEGIN, END))
        own_share = vocabulary.counts[vocabulary.unknown_id] / max(1, words)
    sample = Sample.of(source)
    return _doubts(source, sample) or _unknown_doubts(
        source, sample, vocabulary.ids, vocabulary.name, own_share=own_share
    )


def model_doubts(source: Source, words: Collection[str], model: str, splits: bool = True) -> list[str]:
    """The doubts about a text that a trained model reads.

    Args:
        words: of the model's vocabulary.
        splits: whether the model's tokenizer splits words from punctuation.
    """
    sample = Sample.of(source)
    helps = (
        source.raw or _share_if_split(source, sample, words) < 0.9 * _unknown_share(source, sample, words)[0]
    )
    return _doubts(source, sample, splits and helps) or _unknown_doubts(
        source, sample, words, f"the vocabulary of {model}", splits=splits
    )


def raw_doubt(sentences: Iterable[str]) -> str | None:
    """The doubt about sentences that are said to have blanks between words and punctuation."""
    sample = Sample.of_lines(sentences)
    return f"looks like raw text: {_sign_of_raw(sample)}; use --raw." if sample.is_raw else None


@dataclass
class Sample:
    """The first lines that are not empty."""

    lines: list[str]

    @classmethod
    def of(cls, source: Source) -> "Sample":
        return cls.of_lines(
            line for shard in range(source.num_shards) for lines in source.lines(shard) for line in lines
        )

    @classmethod
    def of_lines(cls, texts: Iterable[str]) -> "Sample":
        kept: list[str] = []
        characters = 0
        for text in islice(texts, 20 * MOST_LINES):
            line = text[:LONGEST_LINE]
            if line and not line.isspace():
                kept.append(line)
                characters += len(line)
                if len(kept) >= MOST_LINES or characters >= MOST_CHARACTERS:
                    break
        return cls(kept)

    @cached_property
    def words(self) -> list[str]:
        """What stands between blanks."""
        return [word for line in self.lines for word in line.split()]

    @cached_property
    def glued(self) -> list[str]:
        return [word for word in self.words if _GLUED.fullmatch(word)]

    @cached_property
    def apart(self) -> int:
        """Signs that stand apart."""
        return sum(_APART.fullmatch(word) is not None for word in self.words)

    @property
    def is_code(self) -> bool:
        return sum(_CODE.match(word) is not None for word in self.words) > max(2, 0.12 * len(self.words))

    @property
    def is_raw(self) -> bool:
        """Sentences whose signs stand at their words."""
        ends = sum(_GLUED_END.fullmatch(word) is not None for word in self.glued)
        is_frequent = len(self.glued) >= max(2, 0.03 * len(self.words))
        stops = sum(_STOP.fullmatch(word) is not None for word in self.words)  # French sets ? and ! apart
        return is_frequent and ends >= 0.15 * len(self.glued) and len(self.glued) > 2 * stops

    @property
    def is_split(self) -> bool:
        """Sentences whose signs stand apart."""
        return self.apart >= max(2, 0.03 * len(self.words)) and self.apart > 4 * len(self.glued)

    @cached_property
    def paragraphs(self) -> list[tuple[int, int]]:
        """The numbers of sentences and words of the lines that are long, or none if few are."""
        lines = [line for line in self.lines if len(line.split()) >= 30]
        if len(lines) < 0.4 * len(self.lines):
            return []
        sizes = [(len(split_sentences(line)), len(line.split())) for line in lines]
        return sizes if sum(sentences for sentences, _ in sizes) >= 2 * len(sizes) else []

    def is_unspaced(self, source: Source) -> bool:
        if not any(map(_UNSPACED.search, self.lines)):
            return False
        words = self.words_of(source)
        unspaced = [word for word in words if _UNSPACED.search(word)]
        letters, ideographs = sum(map(len, unspaced)), sum(map(len, filter(_IDEOGRAPH.search, unspaced)))
        usual = 3.5 if ideographs > 0.5 * letters else 7  # more than words have
        return letters > 0.5 * sum(map(len, words)) and letters > usual * len(unspaced)

    def words_of(self, source: Source) -> list[str]:
        return [word for line in self.lines for text in source.sentences(line) for word in source.words(text)]

    def longest_word(self, source: Source) -> str:
        return max(self.words_of(source), key=len)[:20]


# ---- words and sentences


def _sign_of_raw(sample: Sample) -> str:
    usual = [word for word in sample.glued if word[0].isalpha() and not word[0].isupper()]
    return f"words such as {examples(usual or sample.glued)} keep their punctuation"


def _splitting(sample: Sample, source: Source, splits: bool) -> Iterator[str]:
    signs, options = [], []
    if sample.is_raw and splits and not source.raw:
        signs.append(_sign_of_raw(sample))
        options.append("--raw")
    if sample.paragraphs and not source.split_sentences:
        numbers = zip(*sample.paragraphs, strict=True)
        sentences, words = (sum(column) / len(sample.paragraphs) for column in numbers)
        signs.append(f"lines have {sentences:.0f} sentences and {words:.0f} words on average")
        options.append("--split-sentences")
    if signs:
        kind = "raw text" if "--raw" in options else "text in paragraphs"
        yield f"looks like {kind}: {' and '.join(signs)}; use {' '.join(options)}."
    if sample.is_split and source.raw:
        share = sample.apart / len(sample.words)
        yield (
            f"looks like text whose words are split already ({share:.0%} of what stands "
            "between blanks is punctuation); leave out --raw."
        )


def examples(words: Sequence[str], count: int = 2) -> str:
    """The most frequent words, for messages."""
    return " and ".join(repr(quoted(word, 40)) for word, _ in Counter(words).most_common(count))


def _wrapping(sample: Sample) -> Iterator[str]:
    """Of pages whose lines end where the page did. The lines are read without the empty ones between them, so
    most of those that go on must be seen to."""
    lengths = sorted(map(len, sample.lines))
    if len(lengths) < 10 or lengths[len(lengths) // 2] < 45 or lengths[9 * len(lengths) // 10] > 100:
        return
    goes_on = [
        not _SENTENCE_END.fullmatch(line.rstrip()) and following.lstrip()[:1].islower()
        for line, following in pairwise(sample.lines)
    ]
    if sum(goes_on) > 0.4 * len(goes_on):
        yield (
            "looks like text with line breaks inside its sentences; join the lines of each paragraph first, "
            "as a line is read as a sentence, or as a paragraph with --split-sentences."
        )


# ---- files of other forms


def _form(lines: Sequence[str]) -> str | None:
    """The form of a file that is no plain text, with what to do."""
    if _share(lines, _is_json_object) > 0.8:
        return "JSON lines; name the file .jsonl, and its column by --column"
    if lines[0].lstrip()[0] in "[{" and _share(lines, _is_in_json) > 0.5:
        return "JSON; name the file .json if it is an array of objects, and its column by --column"
    if sum(len(_TAG.findall(line)) for line in lines) > max(1, 0.1 * len(lines)) or _is_xml(lines):
        return "HTML or XML, whose tags would be words; take the text out of it first"
    if _share(lines, _is_labelled) > 0.8 or _is_table_of_words(lines):
        return "columns with one word a line; write each sentence on a line of its own, without the labels"
    if _share(lines, lambda line: "\t" in line) > 0.8:
        return "a table with tabs; name the file .tsv, and its column by --column"
    if _is_csv(lines):
        return "CSV; name the file .csv, and its column by --column"
    return None


def _share(lines: Sequence[str], is_so: Callable[[str], bool]) -> float:
    return sum(map(is_so, lines)) / len(lines)


def _is_json_object(line: str) -> bool:
    line = line.strip()
    if not (line.startswith("{") and '"' in line):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) >= LONGEST_LINE - 1


def _is_in_json(line: str) -> bool:
    line = line.strip()
    return regex.match(r'[\[\]{}]|"[^"]*"\s*(?::|,?$)', line) is not None


def _is_xml(lines: Sequence[str]) -> bool:
    is_declared = lines[0].lstrip("\ufeff ").startswith("<?xml")
    return is_declared or _share(lines, lambda line: _ELEMENT.match(line) is not None) > 0.5


def _is_labelled(line: str) -> bool:
    words = line.split()
    return len(words) >= 2 and _LABEL.fullmatch(words[-1]) is not None


def _is_table_of_words(lines: Sequence[str]) -> bool:
    """CoNLL's forms with tabs: comments, and lines with a word or its number first."""
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    table = [row for row in rows if len(row) > 1 and all(len(field.split()) <= 1 for field in row)]
    return bool(rows) and len(table) > 0.8 * len(rows)


def _is_csv(lines: Sequence[str]) -> bool:
    ends = [len(_FIELD_END.findall(line)) for line in lines]
    is_headed = regex.fullmatch(r'"?\w+"?([,;]"?\w+"?)+', lines[0].strip()) is not None and len(lines) > 1
    if is_headed:
        return sum(bool(count) for count in ends[1:]) > 0.8 * (len(ends) - 1)
    usual, number = Counter(ends).most_common(1)[0]
    return usual >= 2 and len(lines) >= 5 and number > 0.8 * len(lines)


# ---- words outside of a vocabulary


def _unknown_share(source: Source, sample: Sample, words: Collection[str]) -> tuple[float, list[str]]:
    """The share of the sample's words that a vocabulary does not have, and these words."""
    sampled = sample.words_of(source)
    unknown = [word for word in sampled if word not in words and word != "<UNK>"]
    return len(unknown) / max(1, len(sampled)), unknown


def _share_if_split(source: Source, sample: Sample, words: Collection[str]) -> float:
    """The share of unknown words if the text were read with the other value of --raw."""
    if source.is_words:
        return 1.0
    other = copy.copy(source)
    other.raw = not source.raw
    return _unknown_share(other, sample, words)[0]


def _unknown_doubts(
    source: Source,
    sample: Sample,
    words: Collection[str],
    vocabulary: str,
    *,
    own_share: float | None = None,
    splits: bool = True,
) -> list[str]:
    """A sentence if unusually many of the first words are outside of a vocabulary, with the likely reason.

    Args:
        words: those of the vocabulary.
        vocabulary: its name.
        own_share: the share of the words of its own text that are outside of it, if that is known.
        splits: whether --raw is of use.
    """
    share, unknown = _unknown_share(source, sample, words)
    if share < 0.1:
        return []
    start = f"{share:.0%} of the first words of {quoted(source.name)} are not in {quoted(vocabulary)}"
    other_share = _share_if_split(source, sample, words)
    if other_share < 0.6 * share:
        way = (
            "without --raw" if source.raw else "with --raw" if splits else "with words and punctuation apart"
        )
        what = "read" if source.raw or splits else "split"
        return [f"{start}, and only {other_share:.0%} {way}; {what} it as the text of the vocabulary was."]
    if share < (0.25 if own_share is None else max(0.2, 2 * own_share)):
        return []
    usual = "" if own_share is None else f" ({own_share:.0%} of the text that it was counted on)"
    reason = "it was counted on other text, or on text that was split otherwise"
    return [f"{start}{usual}, such as {examples(unknown, 3)}; {reason}."]


def heldout_unknown_share(heldout: Source, vocabulary: Vocabulary) -> float:
    """The share of the words of (the first) held-out sentences that a vocabulary does not have."""
    words = [word for sentence in islice(heldout, MOST_HELDOUT) for word in sentence]
    return sum(vocabulary.ids[word] == vocabulary.unknown_id for word in words) / max(1, len(words))


def rare_doubt(
    words: WordCounts, vocabulary: Vocabulary, max_words: int | None, is_doubtful: bool
) -> str | None:
    """A sentence if a new vocabulary leaves out unusually many words of its own text.

    Args:
        is_doubtful: whether the text raised doubts.
    """
    share = vocabulary.counts[vocabulary.unknown_id] / words.tokens if vocabulary.counts else 0.0
    if share < 0.1:
        return None
    if is_doubtful:
        reason = "most likely as it was read in another way than it is written, see above"
    elif max_words is not None and len(vocabulary) >= max_words + len(SPECIALS):
        reason = f"a higher --max-words than {max_words:,} leaves out fewer"
    else:
        reason = "count more text, or lower --min-count"
    return f"{share:.0%} of the words of the text are <UNK>, which a model cannot learn to predict; {reason}."
