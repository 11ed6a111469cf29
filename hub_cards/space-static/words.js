// Text to sentences, sentences to words, words to character ids: what elmo_hf does in Python, with the same results.
//
//     splitSentences("He paid. Mr. Smith left.")      // ["He paid.", "Mr. Smith left."]
//     splitText("He didn't pay.")                     // ["He", "didn", "'t", "pay", "."]
//     characterIds("pay", 50)                         // [259, 113, 98, 122, 260, 261, 261, ...]
//
// The rules are those of model/words_elmo.py, corpus/sentences.py and errors.py; tests hold them equal on thousands
// of texts. Letters and digits are those of the browser's version of Unicode.

// A byte is 1 to 256, and 0 means "no word here".
const SENTENCE_BEGIN = 257, SENTENCE_END = 258, WORD_BEGIN = 259, WORD_END = 260, WORD_PAD = 261;
const SPECIAL = ["<S>", "</S>", "<UNK>", "<PAD>"]; // a tokenizer's: begin and end of a sentence, and others

// ---- words

// What str.split() of Python splits at. JavaScript's \s has U+FEFF in addition, and lacks U+001C to U+001F and U+0085.
const BLANKS = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACE = `[${BLANKS}]`, SIGN = `[^${BLANKS}]`;
const LETTER = "[\\p{L}\\p{M}\\p{N}\\u200c\\u200d]";
const ABBREVIATIONS =
  "Mr|Mrs|Ms|Dr|Prof|Rev|Hon|St|Gen|Col|Lt|Maj|Capt|Sgt|Cpl|Gov|Sen|Rep|Pres|Jr|Sr|Inc|Ltd|Co|Corp|Bros|" +
  "No|Vol|vs|etc|cf|al|fig|Fig|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Ph\\.D|approx|dept|est";
const PENN = [
  `(?<!${SIGN})['’](?:s|t|m|d|re|ve|ll)(?!${SIGN})`, // a clitic that is split off already
  `(?<=\\p{L}\\p{M}*\\.?)['’]\\p{L}${LETTER}*`, // Don | 't
  `(?<=\\p{N})['’]s(?!${LETTER})`, // 1990 | 's
  `(?<!${LETTER})(?:${ABBREVIATIONS})\\.(?=${SPACE})`, // Dr.
  `(?<!${LETTER})\\p{L}(?:\\.\\p{L})+\\.(?!${LETTER}|-${LETTER})`, // U.S.
  `(?<!${SIGN})\\p{Lu}\\.(?=${SPACE})`, // the initial in "John F. Kennedy"
  `(?:(?<!${SIGN})-?\\.?(?=\\p{N}))?${LETTER}+(?:(?:\\.-|[.\\-]|(?<=\\p{N}),(?=\\p{N}))${LETTER}+)*`,
  "\\.{2,}",
  "-{2,}",
  `${SIGN}\\p{M}*`, // any other sign stands alone
];
const SPLITTERS = { penn: new RegExp(PENN.join("|"), "gu"), whitespace: new RegExp(`${SIGN}+`, "gu") };
const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|\/]/g, "\\$&");

/**
 * The words of a text, by the rule of the One Billion Word text ("penn") or split at blanks ("whitespace"). What is
 * listed in `special` is one word where it stands alone.
 */
export function splitText(text, splitter = "penn", special = SPECIAL) {
  const alone = new RegExp(`(?<!${SIGN})(?:${special.map(escaped).join("|")})(?!${SIGN})`, "gu");
  const words = [];
  let start = 0;
  for (const special of text.matchAll(alone)) {
    words.push(...(text.slice(start, special.index).match(SPLITTERS[splitter]) ?? []), special[0]);
    start = special.index + special[0].length;
  }
  return words.concat(text.slice(start).match(SPLITTERS[splitter]) ?? []);
}

// ---- character ids

const UTF8 = new TextEncoder();

/** The UTF-8 bytes of a word. Halves of surrogate pairs have none. */
function bytesOf(word) {
  return UTF8.encode(word.replace(/\p{Cs}/gu, ""));
}

/** A row of `length` character ids: word begin, the word's bytes, cut if they are too many, word end, padding. */
export function characterIds(word, length, [begin, end] = SPECIAL) {
  const row = new Array(length).fill(WORD_PAD);
  row[0] = WORD_BEGIN;
  const boundary = word === end ? SENTENCE_END : word === begin ? SENTENCE_BEGIN : undefined;
  const content = boundary === undefined ? Array.from(bytesOf(word), (byte) => byte + 1) : [boundary];
  content.slice(0, length - 2).forEach((id, index) => (row[index + 1] = id));
  row[Math.min(content.length, length - 2) + 1] = WORD_END;
  return row;
}

// ---- sentences

// A sentence may end at a run of these and the quotes and brackets that close after it. Western ones need a blank
// behind them, the full-width ones of Chinese and Japanese do not.
const CLOSERS = "[\"'”’»›)\\]}」』）】]*";
const SENTENCE_ENDS = new RegExp(
  `(?<![.!?…])(?<sign>[.!?…]+|[।॥؟۔።։။។‼⁇⁈⁉]+)${CLOSERS}(?<blank>${SPACE}+)|[。！？｡]+${CLOSERS}(?<space>${SPACE}*)`,
  "gu",
);
// What the next sentence begins with: no small letter, and no sign that goes on with the old one.
const START = /^[\p{Lu}\p{Lt}\p{Lo}\p{N}"'“‘«‹„¿¡(\[{「『（【$€£#*–—\-]/u;
// Dots that stand in front of a name or number, and those that may also be the last sign of a sentence.
const whole = (words) => new RegExp(`^(?:${words})$`, "u");
const TITLES = whole(
  "M|Mrs?|Ms|Messrs|Mme|Mlle|Drs?|Prof|Rev|Fr|Hon|Ste?|Mt|Ft|Gen|Col|Lt|Maj|Capt|Cmdr|Adm|Sgt|Cpl|Pvt|Gov|" +
    "Sen|Rep|Pres|Supt|vs?|[Cc]f|eg|ie|e\\.g|i\\.e|viz|al",
);
const NUMBERED = whole(
  "[Nn]os?|[Vv]ols?|[Ff]igs?|pp?|[Cc]h|[Ss]ec|[Aa]rt|ca?|approx|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec",
);
const LAST_WORDS = whole("Inc|Ltd|Co|Corp|Bros|Jr|Sr|etc|Esq|est|[Dd]ept|Univ|Ave|Blvd|Rd|Ph\\.D|a\\.m|p\\.m");
const DOTTED = whole("\\p{L}(?:\\.\\p{L})+");
const OPENERS = whole(
  "The|An?|This|That|These|Those|He|She|It|We|They|I|You|His|Her|Its|Our|Their|My|Your|There|Here|In|On|At|" +
    "By|For|From|With|After|Before|When|While|If|As|But|And|Or|So|Yet|Then|Now|However|Although|Since|Because|" +
    "Not|No|One|Some|Many|Most|All|Both|Each|What|Who|Where|Why|How",
);
const OUTER_BLANKS = new RegExp(`^${SPACE}+|${SPACE}+$`, "gu");
const WORDS = new RegExp(`${SIGN}+`, "gu");
const AROUND = 32; // characters before and after a sign that decide

const strip = (text) => text.replace(OUTER_BLANKS, "");
const wordsOf = (text) => text.match(WORDS) ?? [];

/** The sentences of a paragraph by rules, without the blanks around them. */
export function splitSentences(text) {
  const characters = Array.from(text); // a character outside the basic plane is one, as in Python
  const joined = (start, end) => characters.slice(start, end).join("");
  const position = positions(text);
  const sentences = [];
  let start = 0;
  for (const end of text.matchAll(SENTENCE_ENDS)) {
    const first = position[end.index], last = position[end.index + end[0].length];
    const blank = end.groups.blank ?? end.groups.space;
    const following = joined(last, last + AROUND), before = joined(Math.max(start, first - AROUND), first);
    if (endsSentence(end.groups.sign, end[0], blank, before, following)) {
      sentences.push(strip(joined(start, last - blank.length)));
      start = last;
    }
  }
  sentences.push(strip(joined(start)));
  return sentences.filter((sentence) => sentence);
}

/** For each index of a string, how many characters stand before it. */
function positions(text) {
  const before = [];
  let count = 0;
  for (const character of text) {
    for (let unit = 0; unit < character.length; unit++) before.push(count);
    count += 1;
  }
  return [...before, count];
}

function endsSentence(sign, end, blank, before, following) {
  if (sign === undefined) return true;
  if (following && !START.test(following)) return false;
  const isBareDot = sign === "." && end.length === sign.length + blank.length; // no quote closes behind it
  if (!isBareDot || !wordsOf(before.slice(-1)).length) return true;
  return !isAbbreviated(wordsOf(before), wordsOf(following)[0] ?? "");
}

/** Whether the dot behind the last of the words `before` only says that it is an abbreviation. */
function isAbbreviated(before, following) {
  const word = before.at(-1).replace(/^[(\[{'"“‘«]+/u, "");
  if (TITLES.test(word) || (before.length === 1 && isDigits(word))) return true; // "1. Introduction"
  if (NUMBERED.test(word)) return isDigits(Array.from(following)[0] ?? "");
  const isInitial = Array.from(word).length === 1 && /^\p{Uppercase}$/u.test(word) && word !== "I";
  if (isInitial || DOTTED.test(word) || LAST_WORDS.test(word)) return !OPENERS.test(following);
  return false;
}

// str.isdigit() of Python: decimal digits, and those that are raised, lowered, circled and the like.
const DIGITS = new RegExp(
  "^[\\p{Nd}²³¹⁰⁴-⁹₀-₉፩-፱᧚①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒" +
    "\\u{10A40}-\\u{10A43}\\u{10E60}-\\u{10E68}\\u{11052}-\\u{1105A}\\u{1F100}-\\u{1F10A}]+$",
  "u",
);
const isDigits = (text) => DIGITS.test(text);

// ---- text as it is shown

// Controls, bidirectional overrides, invisible tags, halves of surrogate pairs; not tabs and line breaks.
const HIDDEN =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\u{E0000}-\u{E007F}]/gu;
const LINE_ENDS = /\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]/u;

/** A text without characters that hide what a page shows. */
export const visible = (text) => text.replace(HIDDEN, "\ufffd");

/** The words of each sentence of a text; a line may hold several. Sentences without a word are left out. */
export function sentencesOf(text, splitter = "penn", special = SPECIAL) {
  const lines = text.split(LINE_ENDS).map(visible);
  return lines
    .flatMap(splitSentences)
    .map((sentence) => splitText(sentence, splitter, special))
    .filter((words) => words.length);
}
