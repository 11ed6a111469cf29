// The parts of the page, as elements. A word has `form`, `key`, `label` (its sentence), `words`, `index`, `layers`.

import { cluster, cosine, fit, nearest, project, separate } from "./maths.js";

const MAX_ROWS = 10, MAX_ON_MAP = 40;
const CONTEXT = 14; // words of a long sentence that are shown on each side of the word
const WIDTH = 340, HEIGHT = 250, RADIUS = 11;
const FRAME = [18, 18, WIDTH - 18, HEIGHT - 18]; // of the circles' centres

// ---- elements

export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function radio(name, label, value, isChecked) {
  const input = element("input", { type: "radio", name, value });
  input.checked = isChecked;
  return element("label", {}, input, ` ${label}`);
}

/** A word inside a line that may have another direction. */
export const isolated = (word) => `\u2068${word}\u2069`;

const message = (text) => element("p", {}, text);
const badge = (label, group) => element("span", { class: `number group-${group ?? "none"}` }, label);

// ---- the text

/** All sentences. Words are buttons, but inline, so that lines of two directions are in order. */
export function showText(box, words, pick) {
  const lines = [];
  for (const word of words) {
    if (word.index === 0) {
      lines.push(element("span", { class: "words" }));
      lines.at(-1).label = word.label;
    } else {
      lines.at(-1).append(" ");
    }
    lines.at(-1).append(word.isWord ? wordButton(word, pick) : word.form);
  }
  const line = (words) => element("div", { class: "sentence", dir: "auto" }, badge(words.label), words);
  box.replaceChildren(...lines.map(line));
}

function wordButton(word, pick) {
  const button = element("span", { class: "word", role: "button", tabindex: 0 }, word.form);
  button.word = word;
  button.onclick = () => pick(word);
  button.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pick(word);
  };
  return button;
}

/** Mark the picked word and its other occurrences. */
export function markText(box, picked) {
  for (const button of box.querySelectorAll(".word")) {
    button.classList.toggle("picked", button.word === picked);
    button.classList.toggle("same", button.word !== picked && button.word.key === picked.key);
    button.setAttribute("aria-pressed", button.word === picked);
  }
}

/** The word's sentence with the word marked; a long sentence is cut around it. */
function inContext({ words, index }) {
  const start = Math.max(0, index - CONTEXT), end = index + CONTEXT + 1;
  const before = [...(start ? ["…"] : []), ...words.slice(start, index), ""].join(" ");
  const after = ["", ...words.slice(index + 1, end), ...(end < words.length ? ["…"] : [])].join(" ");
  return element("td", { class: "context", dir: "auto" }, before, element("mark", {}, words[index]), after);
}

// ---- occurrences and their groups

const sameAs = (words, picked) => words.filter((word) => word.key === picked.key);

/** An occurrence's label is its sentence: 3, or 3.1, 3.2 if there are several in it. */
function labelsOf(occurrences) {
  const inSentence = (label) => occurrences.filter((word) => word.label === label);
  return new Map(
    occurrences.map((word) => {
      const all = inSentence(word.label);
      return [word, all.length > 1 ? `${word.label}.${all.indexOf(word) + 1}` : word.label];
    }),
  );
}

/** A group for each occurrence of the picked word that is on the map. */
export function groupsOf(words, picked, vector, number) {
  const occurrences = sameAs(words, picked), index = occurrences.indexOf(picked);
  const start = Math.max(0, Math.min(index - MAX_ON_MAP / 2, occurrences.length - MAX_ON_MAP));
  const onMap = occurrences.slice(start, start + MAX_ON_MAP);
  const groups = cluster(onMap.map(vector), number);
  return new Map(onMap.map((word, k) => [word, groups[k]]));
}

// ---- tables

/** The other occurrences of the picked word, with their cosines in each layer. */
export function sameWord({ words, picked, columns, layer, vector, groups }) {
  const occurrences = sameAs(words, picked);
  const rows = sorted(occurrences, picked, (word) => vector(word, layer)).slice(0, MAX_ROWS);
  if (!rows.length) return [message(`“${isolated(picked.form)}” occurs once; write another sentence with it.`)];
  const isChosen = (column) => String(column) === layer;
  const cells = (word) => columns.map((column) => cosineCell(cosine(vector(word, column), vector(picked, column)), isChosen(column)));
  const heads = columns.map((column) => [column === "mix" ? "mix" : `layer ${column}`, isChosen(column)]);
  const labels = labelsOf(occurrences);
  const row = (word) => element("tr", {}, labelCell(labels.get(word), groups.get(word)), ...cells(word), inContext(word));
  const body = rows.map(([word]) => row(word));
  const missing = occurrences.length - 1 - rows.length;
  const note = missing ? [element("p", { class: "caption" }, `The nearest ${rows.length} of ${rows.length + missing}.`)] : [];
  return [table(heads, body), ...note];
}

/** The nearest words that are others, each by its nearest occurrence. */
export function otherWords({ words, picked, layer, vector }) {
  const others = words.filter((word) => word.isWord && word.key !== picked.key);
  const keys = new Set();
  const isFirst = ([word]) => !keys.has(word.key) && keys.add(word.key);
  const rows = sorted([picked, ...others], picked, (word) => vector(word, layer)).filter(isFirst).slice(0, MAX_ROWS);
  if (!rows.length) return [message("There is no other word.")];
  const body = rows.map(([word, cosine]) => element("tr", {}, labelCell(word.label), cosineCell(cosine, true), inContext(word)));
  return [table([["cosine", true]], body), caption(rows)];
}

/** The words except the picked one, with their cosines, the nearest first. */
function sorted(words, picked, vector) {
  return nearest(words.map(vector), words.indexOf(picked), [...words.keys()]).map(([k, cosine]) => [words[k], cosine]);
}

/** Columns of cosines between the sentences' numbers and the sentences. */
function table(columns, body) {
  const head = (text, css) => element("th", { scope: "col", class: css }, text);
  const heads = columns.map(([text, isChosen]) => head(text, cosineClass(isChosen)));
  const row = element("tr", {}, head("in", "label"), ...heads, head("sentence", "context"));
  return element("table", {}, element("thead", {}, row), element("tbody", {}, ...body));
}

const cosineClass = (isChosen) => (isChosen ? "cosine chosen" : "cosine");
const cosineCell = (cosine, isChosen) => element("td", { class: cosineClass(isChosen) }, cosine.toFixed(2));
const labelCell = (label, group) => element("td", { class: "label" }, badge(label, group));

function caption(rows) {
  const note = rows.some(([word]) => word.isExample) ? " The letter e means an example's sentence." : "";
  return element("p", { class: "caption" }, `The numbers are cosines; 1 is the same vector.${note}`);
}

// ---- the map

/** A numbered circle for each occurrence; a line joins a circle that was moved to its point. */
export function map({ words, picked, layer, vector, groups }) {
  const onMap = [...groups.keys()], occurrences = sameAs(words, picked), labels = labelsOf(occurrences);
  const { points, variance } = project(onMap.map((word) => vector(word, layer)));
  const fitted = fit(points, FRAME), centres = separate(fitted, RADIUS + 1, FRAME);
  const lines = [], circles = [];
  onMap.forEach((word, k) => {
    const label = labels.get(word), [x, y] = fitted[k], [cx, cy] = centres[k].map((number) => number.toFixed(1)), css = `group-${groups.get(word)}`;
    if (Math.hypot(x - cx, y - cy) > RADIUS / 2) lines.push(svg("path", { d: `M${x.toFixed(1)} ${y.toFixed(1)}L${cx} ${cy}`, class: css }));
    circles.push(
      svg("g", {}, svg("title", {}, word.words.join(" ").slice(0, 200)),
        svg("circle", { cx, cy, r: RADIUS, class: `${css}${word === picked ? " picked" : ""}` }),
        svg("text", { x: cx, y: Number(cy) + 4, class: label.length > 3 ? "long" : "" }, label)),
    );
  });
  const frame = svg("rect", { x: 1, y: 1, width: WIDTH - 2, height: HEIGHT - 2, rx: 6 });
  const label = `Map of the occurrences of ${picked.form}`;
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, frame, ...lines, ...circles);
  return [picture, ...mapNotes(variance, onMap.length, occurrences.length)];
}

function mapNotes(variance, shown, total) {
  const percent = variance.map((share) => `${Math.round(100 * share)}%`).join(" and ");
  const axes = shown > 1 ? ` Across and up: ${percent} of how the vectors differ.` : "";
  const notes = [`Numbers are sentences, colours are groups.${axes}`];
  if (shown > 1 && !variance[0]) notes.push("All occurrences have one and the same vector here.");
  if (total > shown) notes.push(`The map has ${shown} of ${total} occurrences.`);
  return notes.map((note) => element("p", { class: "caption" }, note));
}
