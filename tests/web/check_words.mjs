// Compares the page's tokenizer with what Python's gives: node check_words.mjs words.js expected.json
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [program, file] = process.argv.slice(2);
const { characterIds, sentencesOf, splitSentences, splitText } = await import(pathToFileURL(program));
const expected = JSON.parse(readFileSync(file, "utf8"));
const results = {
  penn: (text) => splitText(text, "penn"),
  whitespace: (text) => splitText(text, "whitespace"),
  sentences: splitSentences,
  page: (text) => sentencesOf(text),
  ids: (word) => characterIds(word, expected.length),
  short: (word) => characterIds(word, 5),
};
let differences = 0, compared = 0;
for (const [name, result] of Object.entries(results)) {
  for (const [input, output] of expected[name]) {
    const actual = JSON.stringify(result(input));
    compared += 1;
    if (actual !== JSON.stringify(output) && differences++ < 20) {
      console.log(name, JSON.stringify(input), "gives", actual, "but", JSON.stringify(output), "is expected");
    }
  }
}
console.log(`${compared} compared, ${differences} differ`);
process.exit(differences ? 1 : 0);
