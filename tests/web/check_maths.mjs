// What maths.js computes for given vectors, as JSON: node check_maths.mjs maths.js inputs.json
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [program, file] = process.argv.slice(2);
const { cluster, fit, mean, nearest, project, separate } = await import(pathToFileURL(program));
const results = JSON.parse(readFileSync(file, "utf8")).map(({ vectors, groups, frame }) => {
  const { points, variance } = project(vectors);
  const fitted = fit(points, frame);
  return {
    mean: Array.from(mean(vectors)),
    nearest: nearest(vectors, 0, [...vectors.keys()]),
    cluster: cluster(vectors, groups),
    points,
    variance,
    fitted,
    separated: separate(fitted, 12, frame),
  };
});
console.log(JSON.stringify(results));
