// The model in a thread of its own, so that the page answers while it reads.
//
// The page sends {settings}, and gets {progress} and then {ready: true}; it sends {number, sentences}, and gets
// {number, vectors}. What goes wrong comes back as {number, fault}, one sentence.

import { download, reasonOf, start } from "./model.js";

let model;

onmessage = async ({ data: { settings, number, sentences } }) => {
  try {
    if (settings) {
      model = await load(settings);
      postMessage({ ready: true });
    } else {
      postMessage({ number, vectors: await model.read(sentences) });
    }
  } catch (error) {
    postMessage({ number, fault: settings ? error.message : `The text could not be read (${reasonOf(error)}).` });
  }
};

async function load(settings) {
  const files = Object.entries(settings.files); // [["model", {path, bytes}], ["runtime", {path, bytes}]]
  const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0), loaded = {};
  const contents = await Promise.all(
    files.map(([name, { path, bytes }]) =>
      download(new URL(path, import.meta.url).href, bytes, (size) => {
        loaded[name] = size;
        postMessage({ progress: Object.values(loaded).reduce((a, b) => a + b, 0), total });
      }),
    ),
  );
  const ort = await import("./onnxruntime/ort.wasm.min.js").catch(() => {
    throw new Error("ort.wasm.min.js could not be loaded; the page's folder is not whole.");
  });
  ort.env.wasm.wasmPaths = { mjs: new URL("./onnxruntime/ort-wasm-simd-threaded.js", import.meta.url).href };
  return start(ort, settings, Object.fromEntries(files.map(([name], k) => [name, contents[k]])));
}
