// Compares the vectors that the page computes with those of the model in torch:
//     node check_vectors.mjs page/ expected.json
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [page, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(join(page, name)));
const { start } = await load("model.js");
const ort = await load("onnxruntime/ort.wasm.min.js");
ort.env.wasm.wasmPaths = { mjs: pathToFileURL(join(page, "onnxruntime/ort-wasm-simd-threaded.js")).href };

const settings = JSON.parse(readFileSync(join(page, "settings.json"), "utf8"));
const { sentences, vectors } = JSON.parse(readFileSync(file, "utf8"));
const read = ({ path }) => new Uint8Array(readFileSync(join(page, path)));
const files = { model: read(settings.files.model), runtime: read(settings.files.runtime) };
const model = await start(ort, settings, files);
const actual = await model.read(sentences);

const shape = (nested) => nested.map((words) => words.map((layers) => layers.map((vector) => vector.length)));
const same = JSON.stringify(shape(actual)) === JSON.stringify(shape(vectors));
let largest = 0;
const expected = vectors.flat(2);
actual.flat(2).forEach((vector, k) => vector.forEach((x, i) => (largest = Math.max(largest, Math.abs(x - expected[k][i])))));
console.log(JSON.stringify({ same, vectors: expected.length, largest }));
