"""Thousands of texts on which two implementations of a tokenizer may differ, the same ones each time."""

import random
import unicodedata

# Parts that rules look at, and the characters of which mistakes are made.
PARTS = """
' ’ 's ’s 't 'll 're ''s s' 'S - -- --- . .. ... … , ,, ! ? ?! " “ ” ( ) [ ] { } < > / \\ | # $ % &
* + = @ ^ _ ` ~ Mr. Mrs. Dr. dr. No. no. U.S. U.S.A. e.g. i.e. Ph.D. Ph.D J. F. I. a. é. Å. É. Inc.
etc. Sept. p.m. vs. St.Mary Kennedy He The But and he well-known U.S.-led a.b.- well-.5 3.14 1,000
1,000,000 ,5 .5 -5 -.5 1. 1.5.2 1,a a,1 1990's 1990s' ½ ² ٣ ٣,٤ don't Don’t DON'T o'clock
rock'n'roll l'eau aujourd'hui ' s O'Neill's é's e\u0301's e\u0301.'s <S> </S> <UNK> <PAD> <S><S>
x<S> <S>x <s> 中文 我们去银行。他借钱！ ｡ 日本語「はい」。 한국어 你好！？再见 שלום עֲלֵיכֶם السلام
عليكم، بنك؟ نعم۔ مُدَرِّسَة می\u200cروم हिन्दी है। क्या था॥ ไทย ภาษาไทย 😀 👩\u200d👩\u200d👧 👍🏽
🇩🇪 ❤\ufe0f 1\ufe0f\u20e3 𝒜𝓑 𐐷 𠮷野家 e\u0301 \u0301 \u0301\u0302 a\u0301\u0302b \u200d \u200c \u200b
\u00ad \ufeff \ufffd \u202e \u2066 \ufffe Ⅷ ǅ ß İ ŉ ﬁ Ａ ＇ ʼ ＂ « » ‹ › „ ¿ ¡ ‼ ⁇ ། 。 。」 ."） 』
€5 £5 –5 —
"""
BLANKS = [
    *"\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000",
    "\r\n",
    "  ",
]
CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0))]
LONG = [
    "x" * 47,
    "x" * 48,
    "x" * 49,
    "é" * 24,
    "x" + "é" * 24,
    "漢" * 17,
    "😀" * 13,
    "a-" * 60,
    "'" * 50,
    "." * 60,
]
DOTTED = """
M Mr Mrs Ms Messrs Mme Mlle Dr Drs Prof Rev Fr Hon St Ste Mt Ft Gen Col Lt Maj Capt Cmdr Adm Sgt Cpl
Pvt Gov Sen Rep Pres Supt v vs cf Cf eg ie e.g i.e viz al No no nos Vol vols fig Figs p pp Ch sec
art c ca approx Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Inc Ltd Co Corp Bros Jr Sr etc Esq
est Dept dept Univ Ave Blvd Rd Ph.D a.m p.m I A É a May x U.S a.b.c („Mr ["No 1 12 ² ፩ ⅷ
"""
OPENERS = """
The A An This That These Those He She It We They I You His Her Its Our Their My Your There Here In
On At By For From With After Before When While If As But And Or So Yet Then Now However Although
Since Because Not No One Some Many Most All Both Each What Who Where Why How Smith 5 ٣ ² x “He” (The
¿Qué ǅ 中 𐐀 𐐨
"""
SINGLE = [
    "",
    " ",
    "\0",
    "a\0",
    "\0a",
    "a\0\0",
    "\ud800",
    "\udfff",
    "a\ud83d",
    "\udc00b",
    "\ud800.",
    "a\udc00's",
]


def nasty_texts(number: int = 4000, seed: int = 0) -> list[str]:
    """The texts. No first half of a surrogate pair is followed by a second: in JavaScript, that is a pair."""
    generator, parts, dotted = random.Random(seed), PARTS.split(), DOTTED.split()
    assigned = [
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]
    frequent = [character for character in assigned if character < "\u0530"]
    surrogates = [chr(code) for code in (0xD800, 0xDBFF)]

    def piece() -> str:
        kind = generator.random()
        if kind < 0.6:
            return generator.choice(parts)
        if kind < 0.7:
            return generator.choice(CONTROLS)
        if kind < 0.73:
            return generator.choice(surrogates) + "x"
        if kind < 0.76:
            return generator.choice(LONG)
        characters = frequent if kind < 0.9 else assigned
        return "".join(generator.choice(characters) for _ in range(generator.randrange(1, 6)))

    def text() -> str:
        density = generator.choice([0.0, 0.2, 0.5, 0.9])
        pieces = []
        for _ in range(generator.randrange(1, 16)):
            pieces.append(piece())
            if generator.random() < density:
                pieces.append(" " if generator.random() < 0.8 else generator.choice(BLANKS))
        return "".join(pieces)

    rare = [
        character for character in assigned if unicodedata.category(character) in ("Cf", "Nd", "No", "Zs")
    ]
    around = [*assigned[:: len(assigned) // 2000], *rare]
    each = [f"a{character}b {character}'s.{character} C" for character in around]
    numbered = [f"{character}. C" for character in rare]
    ends = [f"x {word}. {next_word} y" for word in dotted for next_word in ("The", "Smith", "5", "x")]
    ends += [f"{word}. Smith said" for word in dotted] + [f"Ed Inc. {word} y" for word in OPENERS.split()]
    ends += [f"x{'1' * length}. Smith" for length in range(28, 36)]
    return [
        *SINGLE,
        *LONG,
        *parts,
        *BLANKS,
        *CONTROLS,
        *each,
        *numbered,
        *ends,
        *(text() for _ in range(number)),
    ]
