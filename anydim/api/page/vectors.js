// Vectors of any dimension from full ones: cut to the first components, then scaled to length one, which is what the
// server does. A fitted projection changes nothing in this: the server turns vectors by it before it cuts them, so that
// the full vector has been turned already. It knows numbers alone.

export function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
}

export function cut(vector, dimension) {
  const kept = vector.slice(0, dimension);
  const length = Math.sqrt(dot(kept, kept));
  return length > 0 ? kept.map((value) => value / length) : kept;
}

export function dot(one, other) {
  let sum = 0;
  for (let place = 0; place < one.length; place += 1) sum += one[place] * other[place];
  return sum;
}

// Cosines of all pairs at a dimension.
export function similarities(vectors, dimension) {
  const short = vectors.map((vector) => cut(vector, dimension));
  return short.map((one) => short.map((other) => dot(one, other)));
}

// Places of the vectors by their cosine with the query, the best first.
export function ranked(query, vectors, dimension) {
  const short = cut(query, dimension);
  const scores = vectors.map((vector, place) => ({ place, score: dot(short, cut(vector, dimension)) }));
  return scores.sort((one, other) => other.score - one.score || one.place - other.place);
}

// What the slider offers: the multiples of a step, and the width.
export function allowed(width, step) {
  const found = [];
  for (let dimension = step; dimension < width; dimension += step) found.push(dimension);
  return [...found, width];
}

// A few of them, far apart: each about twice the last.
export function spread(dimensions) {
  const found = [];
  for (const dimension of dimensions) if (!found.length || dimension >= 2 * found.at(-1)) found.push(dimension);
  return [...new Set([...found, dimensions.at(-1)])];
}
