// The page: what is typed goes to the worker, and what comes back is shown by view.js.

import { mean } from "./maths.js";
import { sentencesOf } from "./words.js";
import * as view from "./view.js";

const MIX = "mix";
const $ = (id) => document.getElementById(id);
const state = { settings: null, ask: null, examples: null, text: null, picked: null, reading: 0 };

// ---- the model

function fail(sentence) {
  $("loading").hidden = false;
  $("progress").hidden = true;
  $("status").className = "fault";
  $("status").textContent = sentence;
}

async function readSettings() {
  const response = await fetch("settings.json").catch(() => null);
  const settings = response?.ok ? await response.json().catch(() => null) : null;
  if (!settings) throw new Error("settings.json could not be loaded; the page's folder is not whole.");
  return settings;
}

/** Start the worker. It resolves to a function from sentences to the vectors of their words. */
function startModel(settings) {
  const worker = new Worker("worker.js", { type: "module" });
  const waiting = new Map();
  const ask = (sentences) =>
    new Promise((resolve, reject) => {
      waiting.set(waiting.size, { resolve, reject });
      worker.postMessage({ number: waiting.size - 1, sentences });
    });
  return new Promise((resolve, reject) => {
    const stop = (sentence) => {
      worker.terminate(); // what it still loads is of no use
      for (const { reject: refuse } of [...waiting.values(), { reject }]) refuse(new Error(sentence));
    };
    worker.onerror = () =>
      stop("worker.js could not be started; the page's folder is not whole, or the browser is too old.");
    worker.onmessage = ({ data }) => {
      if (data.progress !== undefined) showProgress(data);
      else if (data.ready) resolve(ask);
      else if (data.number === undefined) stop(data.fault);
      else if (data.fault) waiting.get(data.number).reject(new Error(data.fault));
      else waiting.get(data.number).resolve(data.vectors);
    };
    worker.postMessage({ settings });
  });
}

function showProgress({ progress, total }) {
  const [loaded, all] = [progress, total].map((bytes) => (bytes / 1e6).toFixed(1));
  $("progress").hidden = false;
  $("progress").value = progress / total;
  $("status").textContent = progress < total ? `Loading the model: ${loaded} of ${all} MB.` : "Starting the model.";
}

// ---- the text

/** The typed sentences, at most as many characters and words as the page reads, and a note if it is cut. */
function typedSentences() {
  const { limits, splitter, special } = state.settings;
  const characters = Array.from($("text").value.slice(0, 2 * limits.characters));
  const isLong = $("text").value.length > 2 * limits.characters || characters.length > limits.characters;
  let note = isLong ? `The text is cut after ${limits.characters.toLocaleString("en")} letters.` : "";
  let remaining = limits.words;
  const sentences = [];
  for (const words of sentencesOf(characters.slice(0, limits.characters).join(""), splitter, special)) {
    if (words.length > remaining) note = `The text is cut after ${limits.words.toLocaleString("en")} words.`;
    sentences.push(words.slice(0, remaining));
    remaining -= sentences.at(-1).length;
  }
  return { sentences: sentences.filter((words) => words.length), note };
}

/** The words of sentences in a row, with their vectors by layer. */
function wordsOf(sentences, vectors, isExample) {
  return sentences.flatMap((words, sentence) =>
    words.map((form, index) => ({
      form,
      key: form.toUpperCase().toLowerCase(),
      isWord: /[\p{L}\p{N}]/u.test(form),
      label: `${isExample ? "e" : ""}${sentence + 1}`,
      words,
      index,
      isExample,
      layers: vectors[sentence][index],
    })),
  );
}

async function readText(key) {
  const { sentences, note } = typedSentences(), number = ++state.reading;
  $("read").disabled = true;
  $("note").textContent = "Reading.";
  try {
    const vectors = sentences.length ? await state.ask(sentences) : [];
    if (number !== state.reading) return; // another text was sent since
    state.text = wordsOf(sentences, vectors, false);
    $("note").textContent = note || (sentences.length ? "" : "There is no word in the text yet.");
    pickKey(key ?? state.picked?.key);
    view.showText($("sentences"), state.text, pick);
    show();
  } catch (error) {
    if (number === state.reading) $("note").textContent = error.message;
  }
  if (number === state.reading) $("read").disabled = false;
}

async function readExamples() {
  const { examples, splitter, special } = state.settings;
  const sentences = sentencesOf(Object.values(examples).join("\n"), splitter, special);
  state.examples = wordsOf(sentences, await state.ask(sentences), true);
  show();
}

/** Pick a word's first occurrence; the most frequent long word if the text has no such word. */
function pickKey(key) {
  const counts = new Map();
  for (const word of state.text.filter((word) => word.isWord)) counts.set(word.key, (counts.get(word.key) ?? 0) + 1);
  const keys = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)); // stable
  const isTelling = (key) => Array.from(key).length > 3 && counts.get(key) > 1;
  const chosen = counts.has(key) ? key : (keys.find(isTelling) ?? keys[0]);
  const option = (key) => new Option(`${view.isolated(key)} (${counts.get(key)})`, key, false, key === chosen);
  $("word").replaceChildren(...keys.map(option));
  state.picked = state.text.find((word) => word.key === chosen) ?? null;
}

function pick(word) {
  state.picked = word;
  $("word").value = word.key;
  show();
}

// ---- the results

/** The words that are compared: the text's, and the examples' that are not in the text as well. */
function comparedWords() {
  if (!$("with-examples").checked || !state.examples) return state.text;
  const typed = new Set(state.text.map((word) => word.words.join(" ")));
  return [...state.text, ...state.examples.filter((word) => !typed.has(word.words.join(" ")))];
}

function show() {
  if (!state.text) return;
  for (const section of ["same", "others", "map", "text"]) document.querySelector(`section.${section}`).hidden = !state.picked;
  if (!state.picked) return;
  const words = comparedWords(), layer = document.querySelector("input[name=layer]:checked").value;
  const vector = (word, layer) => (layer === MIX ? mixOf(word) : word.layers[layer]);
  const columns = [MIX, ...state.settings.outputs.keys()];
  const groups = view.groupsOf(words, state.picked, (word) => vector(word, layer), Number($("groups").value));
  const options = { words, picked: state.picked, columns, layer, vector, groups };
  view.markText($("sentences"), state.picked);
  $("same-title").textContent = `“${view.isolated(state.picked.form)}” of sentence ${state.picked.label}, and elsewhere`;
  $("same").replaceChildren(...view.sameWord(options));
  $("others").replaceChildren(...view.otherWords(options));
  $("map").replaceChildren(...view.map(options));
}

/** The mean of a word's layers of equal width, computed once. */
function mixOf(word) {
  word.mix ??= mean(state.settings.mixable.map((layer) => word.layers[layer]));
  return word.mix;
}

// ---- the controls

function layOut(settings) {
  const top = settings.outputs.length - 1;
  const name = (layer) => `layer ${layer}` + (layer === 0 ? ": the word alone" : layer === top ? ": the top" : "");
  const layers = [["a mix of layers", MIX], ...settings.outputs.map((_, layer) => [name(layer), layer])];
  $("layers").append(...layers.map(([label, value]) => view.radio("layer", label, value, value === MIX)));
  const example = (word) => view.element("button", { type: "button" }, word);
  for (const word of Object.keys(settings.examples)) {
    const button = $("examples").appendChild(example(word));
    button.onclick = () => {
      $("text").value = settings.examples[word];
      if (state.ask) readText(word);
    };
  }
  $("about").textContent = about(settings);
  $("text").value ||= Object.values(settings.examples)[0];
  $("read").disabled = true;
}

function about({ name, parameters }) {
  const size = `The model is ${name}, with ${(parameters / 1e6).toPrecision(2)} million weights`;
  if (parameters > 2e7) return `${size}.`;
  return `${size}, where the published English ELMo has 94 million. Expect it to tell clear uses of a word apart, and to be wrong often.`;
}

function connect() {
  $("read").onclick = () => readText();
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("read").disabled) readText();
  };
  $("word").onchange = () => {
    pickKey($("word").value);
    show();
  };
  $("layers").onchange = $("with-examples").onchange = show;
  $("groups").oninput = () => {
    $("number-of-groups").textContent = $("groups").value;
    show();
  };
}

async function run() {
  document.body.classList.add("running");
  $("status").textContent = "Loading the model.";
  if (typeof WebAssembly !== "object") {
    throw new Error("This browser has no WebAssembly, in which the model runs; use a current browser, or allow it.");
  }
  state.settings = await readSettings();
  layOut(state.settings);
  document.querySelector("main").hidden = false;
  for (const section of document.querySelectorAll("main section:not(.input)")) section.hidden = true;
  state.ask = await startModel(state.settings);
  connect();
  $("loading").hidden = true;
  await readText(Object.keys(state.settings.examples).find((word) => $("text").value === state.settings.examples[word]));
  await readExamples();
}

run().catch((error) => fail(error.message));
