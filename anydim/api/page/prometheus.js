// Prometheus' text format, and what follows from two readings of it: rates and percentiles. It knows no metric's name.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map((label) => [label[1], label[2]]));
    samples.push({ name: found[1], labels, value: found[3] === "+Inf" ? Infinity : Number(found[3]) });
  }
  return samples;
}

// The sum of a metric over all its labels, or null where there is none.
export function total(samples, name, wanted = () => true) {
  const found = samples.filter((sample) => sample.name === name && wanted(sample.labels));
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : null;
}

// What a histogram counted since an earlier reading: [upper bound, count up to it] by bound.
export function counted(now, before, name, wanted = () => true) {
  const bounds = new Map();
  for (const [samples, sign] of [[now, 1], [before, -1]]) {
    for (const sample of samples) {
      if (sample.name !== `${name}_bucket` || !wanted(sample.labels)) continue;
      const bound = sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le);
      bounds.set(bound, (bounds.get(bound) ?? 0) + sign * sample.value);
    }
  }
  return [...bounds].sort((one, other) => one[0] - other[0]);
}

// Where a share of the counted values lies, by a straight line within its bucket; null where nothing was counted.
export function percentile(buckets, share) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [low, under] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= share * all) {
      return bound === Infinity ? low : low + ((bound - low) * (share * all - under)) / Math.max(1, count - under);
    }
    [low, under] = [bound, count];
  }
  return low;
}
