// What the page computes: a mix of layers, nearest words, groups, a map and its layout, as demo/maths.py does.
//
//     mean([layer 0 of a word, layer 1, ...])            // its mix of layers
//     nearest(vectors, word, candidates)                 // [[another word, its cosine], ...]
//     cluster(vectors, 2)                                // a group for each word: [0, 0, 1, ...]
//     project(vectors)                                   // {points: [[x, y], ...], variance: [share, share]}
//
// A vector is an array of numbers, a frame is [left, top, right, bottom].

const EPSILON = 1e-6; // unit vectors of a smaller variance differ by rounding only

/** The mean of vectors of equal length. */
export function mean(vectors) {
  return Array.from(vectors[0], (_, k) => vectors.reduce((sum, vector) => sum + vector[k], 0) / vectors.length);
}

function dot(a, b) {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
  return sum;
}

/** The vector divided by its length; zeros stay as they are. */
export function unit(vector) {
  const length = Math.sqrt(dot(vector, vector)) || 1;
  return Float64Array.from(vector, (x) => x / length);
}

export const cosine = (a, b) => dot(unit(a), unit(b));

/** The candidates except `word` by their cosine with it, the highest first; of equal ones the earlier. */
export function nearest(vectors, word, candidates) {
  const picked = unit(vectors[word]);
  const rows = candidates.filter((other) => other !== word).map((other) => [other, dot(unit(vectors[other]), picked)]);
  return rows.sort((a, b) => b[1] - a[1]); // stable
}

/** Average linkage: merge the two groups of the highest mean cosine until `number` groups are left. */
export function cluster(vectors, number) {
  const units = vectors.map(unit);
  const sums = units.map((a) => units.map((b) => dot(a, b))); // of the cosines between two groups
  const members = vectors.map((_, word) => [word]);
  while (members.length > Math.max(number, 1)) {
    const [first, second] = closest(sums, members);
    members[first].push(...members.splice(second, 1)[0]);
    sums[first].forEach((_, k) => (sums[first][k] += sums[second][k]));
    sums.forEach((row) => (row[first] += row[second]));
    sums.splice(second, 1);
    sums.forEach((row) => row.splice(second, 1));
  }
  members.forEach((group) => group.sort((a, b) => a - b));
  members.sort((a, b) => a[0] - b[0]);
  return vectors.map((_, word) => members.findIndex((group) => group.includes(word)));
}

function closest(sums, members) {
  let best = [0, 1], highest = -Infinity;
  for (let i = 0; i < members.length; i++) {
    for (let j = i + 1; j < members.length; j++) {
      const mean = sums[i][j] / (members[i].length * members[j].length);
      if (mean > highest) [best, highest] = [[i, j], mean];
    }
  }
  return best;
}

/**
 * PCA of the unit vectors: points, and the share of the variance along both axes. Vectors that differ by rounding
 * only are all at zero. The sign of an axis is such that its largest coordinate is positive.
 */
export function project(vectors) {
  const units = vectors.map(unit), centre = mean(units);
  const centred = units.map((vector) => vector.map((x, k) => x - centre[k]));
  const products = centred.map((a) => centred.map((b) => dot(a, b)));
  const total = products.reduce((sum, row, k) => sum + row[k], 0);
  if (total / vectors.length < EPSILON) return { points: vectors.map(() => [0, 0]), variance: [0, 0] };
  const axes = eigen(products).sort((a, b) => b.value - a.value).slice(0, 2);
  const coordinates = axes.map(({ value, vector }) => {
    const largest = vector.reduce((far, x) => (Math.abs(x) > Math.abs(far) ? x : far), 0);
    const length = Math.sqrt(Math.max(value, 0)) * (largest < 0 ? -1 : 1);
    return vector.map((x) => x * length);
  });
  return {
    points: vectors.map((_, k) => [coordinates[0][k], coordinates[1]?.[k] ?? 0]),
    variance: [0, 1].map((k) => Math.max(axes[k]?.value ?? 0, 0) / total),
  };
}

/** The eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations. */
function eigen(matrix) {
  const size = matrix.length, a = matrix.map((row) => [...row]);
  const vectors = a.map((_, i) => a.map((_, j) => Number(i === j))); // one a row
  for (let sweep = 0; sweep < 100; sweep++) {
    let largest = 0;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        largest = Math.max(largest, Math.abs(a[p][q]));
        rotate(a, vectors, p, q);
      }
    }
    if (largest < 1e-13) break;
  }
  return vectors.map((vector, k) => ({ value: a[k][k], vector }));
}

/** The rotation of axes p and q after which a[p][q] is zero. */
function rotate(a, vectors, p, q) {
  if (!a[p][q]) return;
  const angle = 0.5 * Math.atan2(2 * a[p][q], a[q][q] - a[p][p]);
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  for (const row of a) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
  for (const rows of [a, vectors]) {
    const [x, y] = [rows[p], rows[q]];
    [rows[p], rows[q]] = [x.map((v, k) => c * v - s * y[k]), x.map((v, k) => s * v + c * y[k])];
  }
}

/** Points around zero scaled into the frame, with the same scale on both axes and up as up. */
export function fit(points, [left, top, right, bottom]) {
  const centre = [(left + right) / 2, (top + bottom) / 2], half = [(right - left) / 2, (bottom - top) / 2];
  const extent = [0, 1].map((k) => Math.max(0, ...points.map((point) => Math.abs(point[k]))));
  const scales = [0, 1].filter((k) => extent[k] > 0).map((k) => half[k] / extent[k]);
  const scale = scales.length ? Math.min(...scales) : 1;
  return points.map(([x, y]) => [centre[0] + x * scale, centre[1] - y * scale]);
}

/** The centre of a circle for each point: each in turn takes the nearest free position, if there is any. */
export function separate(points, radius, frame) {
  const [left, top, right, bottom] = frame;
  const offsets = rings(radius / 2, Math.hypot(right - left, bottom - top));
  const centres = [];
  for (const point of points) {
    const [x, y] = [Math.min(Math.max(point[0], left), right), Math.min(Math.max(point[1], top), bottom)];
    const positions = offsets.map(([dx, dy]) => [x + dx, y + dy]);
    const isFree = ([x, y]) =>
      x >= left && x <= right && y >= top && y <= bottom &&
      centres.every(([cx, cy]) => Math.hypot(x - cx, y - cy) >= 2 * radius);
    centres.push(positions.find(isFree) ?? [x, y]);
  }
  return centres;
}

/** Zero, and rings around it, the narrowest first. */
function rings(step, limit) {
  const offsets = [[0, 0]];
  for (let ring = 1; ring <= Math.floor(limit / step); ring++) {
    for (let k = 0; k < 24; k++) {
      const angle = (2 * Math.PI * k) / 24;
      offsets.push([step * ring * Math.cos(angle), step * ring * Math.sin(angle)]);
    }
  }
  return offsets;
}
