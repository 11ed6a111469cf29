// The model: sentences of words in, the vectors of each word in each layer out. It runs in a worker and in node.
//
//     const model = await start(ort, settings, files);   // files: the bytes of the ONNX file and of the runtime
//     const layers = await model.read([["He", "paid", "."]]);   // for each sentence, each word, each layer: a vector

import { characterIds } from "./words.js";

const BATCH_WORDS = 1024; // with padding

/** A file's bytes, with a report of how many have come; `bytes` is how many there must be. */
export async function download(url, bytes, report) {
  const name = new URL(url).pathname.split("/").at(-1);
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error(`${name} could not be loaded; check the connection, and load the page again.`);
  }
  if (!response.ok) {
    throw new Error(`${name} could not be loaded (the server answers ${response.status}); the page's folder is not whole.`);
  }
  const content = new Uint8Array(bytes);
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read().catch(() => ({ done: true }));
    if (done) break;
    if (size + value.length <= bytes) content.set(value, size);
    size += value.length;
    report(size);
  }
  if (size !== bytes) {
    const [came, all] = [size, bytes].map((number) => number.toLocaleString("en"));
    throw new Error(`${name} came with ${came} bytes in place of ${all}; load the page again.`);
  }
  return content;
}

/** The model as onnxruntime-web runs it, with one thread: more need headers that a static host does not send. */
export async function start(ort, settings, files) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = files.runtime;
  ort.env.logLevel = "error";
  let session;
  try {
    session = await ort.InferenceSession.create(files.model, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`The model could not be started (${reasonOf(error)}); try a current browser.`);
  }
  return { read: (sentences) => read(ort, session, settings, sentences) };
}

/** The first line of an error, without a full stop. */
export function reasonOf(error) {
  return String(error?.message ?? error).split("\n")[0].replace(/[.\s]+$/, "");
}

/** Each word's vectors, by sentence. Sentences of similar length share a batch. */
async function read(ort, session, settings, sentences) {
  const order = sentences.map((_, number) => number).sort((a, b) => sentences[b].length - sentences[a].length);
  const vectors = new Array(sentences.length);
  for (let begin = 0; begin < order.length; ) {
    const rows = Math.max(1, Math.floor(BATCH_WORDS / sentences[order[begin]].length));
    const batch = order.slice(begin, begin + rows);
    const results = await readBatch(ort, session, settings, batch.map((number) => sentences[number]));
    batch.forEach((number, row) => (vectors[number] = results[row]));
    begin += rows;
  }
  return vectors;
}

async function readBatch(ort, session, { length, outputs, special }, sentences) {
  const longest = Math.max(...sentences.map((words) => words.length));
  const ids = new BigInt64Array(sentences.length * longest * length); // 0 is padding
  const mask = new BigInt64Array(sentences.length * longest);
  sentences.forEach((words, row) =>
    words.forEach((word, index) => {
      const place = row * longest + index;
      ids.set(characterIds(word, length, special).map(BigInt), place * length);
      mask[place] = 1n;
    }),
  );
  const tensors = await session.run({
    char_ids: new ort.Tensor("int64", ids, [sentences.length, longest, length]),
    attention_mask: new ort.Tensor("int64", mask, [sentences.length, longest]),
  });
  const vector = ({ data, dims }, row, index) =>
    data.slice((row * longest + index) * dims[2], (row * longest + index + 1) * dims[2]);
  return sentences.map((words, row) => words.map((_, index) => outputs.map((name) => vector(tensors[name], row, index))));
}
