// Live metrics: GET /metrics every two seconds while the page is seen, as figures with a line of the last minutes.

import { getText } from "./client.js";
import { byId, draw, make } from "./dom.js";
import { counted, parse, percentile, total } from "./prometheus.js";
import { number, say } from "./words.js";

const EVERY = 2000;
const KEPT = 90; // readings of a line
const WINDOW = 30; // readings that percentiles span: a minute
const QUIET = /^\/(page\/.*|metrics|info|health|ready|docs|openapi\.json|(v1\/)?models(\/.*)?)?$/; // not work for a model
const readings = [];
const lines = new Map();
let paused = false;

export function watchMetrics(failed, worked) {
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
  });
  const turn = async () => {
    if (!paused && !document.hidden && !byId("ask").open) await read(failed, worked);
    setTimeout(turn, EVERY);
  };
  turn();
}

async function read(failed, worked) {
  try {
    readings.push({ at: performance.now() / 1000, samples: parse(await getText("metrics")) });
  } catch (problem) {
    failed(problem);
    return;
  }
  worked();
  if (readings.length > WINDOW + 1) readings.shift();
  drawTiles(true);
}

// The figures of the last reading: name -> [shown, value of its line].
function figures() {
  const [first, before, now] = [readings[0], readings.at(-2) ?? readings[0], readings.at(-1)];
  const engine = (name) => total(now.samples, `anydim_engine_${name}`);
  const rate = (name) => perSecond(now, before, `anydim_engine_${name}_total`);
  const work = (labels) => !QUIET.test(labels.route ?? "");
  const times = counted(now.samples, first.samples, "anydim_http_request_seconds", work);
  const batches = counted(now.samples, first.samples, "anydim_engine_batch_tokens");
  const waits = counted(now.samples, first.samples, "anydim_engine_queue_seconds");
  return {
    "queued-texts": plain(engine("queued_texts")),
    "queued-tokens": plain(engine("queued_tokens")),
    "texts-rate": plain(rate("texts"), 1),
    "tokens-rate": plain(rate("tokens")),
    "batch-p50": plain(percentile(batches, 0.5)),
    "batch-p95": plain(percentile(batches, 0.95)),
    "latency-p50": seconds(percentile(times, 0.5)),
    "latency-p95": seconds(percentile(times, 0.95)),
    "latency-p99": seconds(percentile(times, 0.99)),
    "queue-p95": seconds(percentile(waits, 0.95)),
    "in-flight": plain(total(now.samples, "anydim_http_requests_in_flight")),
    memory: memory(engine("device_used_bytes"), engine("device_total_bytes")),
  };
}

// A restarted engine begins at zero, where a rate would be below it.
function perSecond(now, before, name) {
  const [last, earlier] = [total(now.samples, name), total(before.samples, name)];
  if (last === null || earlier === null || now === before) return null;
  return Math.max(0, (last - earlier) / Math.max(0.001, now.at - before.at));
}

function plain(value, digits = 0) {
  return value === null ? ["–", null] : [number(value, digits), value];
}

function seconds(value) {
  if (value === null) return ["–", null];
  return [value < 1 ? `${number(1000 * value, value < 0.01 ? 1 : 0)} ms` : `${number(value, 2)} s`, value];
}

function memory(used, all) {
  if (!all) return [say("no-gpu"), null];
  return [`${number(used / 2 ** 30, 1)} / ${number(all / 2 ** 30, 1)} GiB`, used];
}

export function drawTiles(isNew = false) {
  if (!readings.length) return;
  const tiles = Object.entries(figures()).map(([name, [shown, value]]) => {
    const line = lines.get(name) ?? [];
    if (isNew) lines.set(name, [...line, value ?? 0].slice(-KEPT));
    const parts = [make("dt", {}, say(`metric-${name}`)), make("dd", {}, shown)];
    return make("div", { "data-metric": name }, ...parts, spark(lines.get(name) ?? []));
  });
  byId("tiles").replaceChildren(...tiles);
}

function spark(values) {
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, place) => `${(100 * (KEPT - values.length + place)) / (KEPT - 1)},${20 - (18 * value) / most}`);
  const svg = draw("svg", { viewBox: "0 0 100 21", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(draw("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
  return svg;
}
