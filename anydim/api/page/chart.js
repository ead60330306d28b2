// The chart of advise: quality against bytes a vector, with intervals, the front and the form to use. It knows the rows
// of advise.json.

import { draw, make } from "./dom.js";
import { number, say } from "./words.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [720, 360, 56, 16, 14, 44];
const CLASSES = { float32: "f32", float16: "f16", int8: "i8", uint8: "i8", binary: "bin", ubinary: "bin" };

export function drawChart(advice) {
  const full = advice.rows.filter((row) => !row.fitted && row.dtype === "float32").sort((a, b) => b.dim - a.dim)[0] ?? advice.rows.at(-1);
  const front = frontOf(advice.rows);
  const title = make("p", { class: "advice" }, [advice.model, advice.corpus].filter(Boolean).join(" · "));
  const words = make("p", {}, typeof advice.advice === "string" ? advice.advice : nameOf(advice.recommended));
  return [title, words, picture(advice, full, front), keys(advice), table(advice, front)];
}

// The rows of which no smaller one is better, the smallest first.
export function frontOf(rows) {
  const kept = [];
  for (const row of [...rows].sort((a, b) => a.bytes - b.bytes || b.value - a.value)) {
    if (!kept.length || row.value > kept.at(-1).value) kept.push(row);
  }
  return kept;
}

function nameOf(row) {
  return `${row.dim} ${row.dtype}${row.fitted ? ` ${say("fitted")}` : ""}`;
}

function groups(rows) {
  const found = new Map();
  for (const row of rows) {
    const name = `${row.dtype}${row.fitted ? ` ${say("fitted")}` : ""}`;
    found.set(name, [...(found.get(name) ?? []), row]);
  }
  return [...found];
}

function picture(advice, full, front) {
  const low = (row) => full.value * row.share_low;
  const high = (row) => full.value * row.share_high;
  const x = scale(advice.rows.map((row) => Math.log2(row.bytes)), LEFT, WIDTH - RIGHT);
  const y = scale(advice.rows.flatMap((row) => [low(row), high(row), row.value]), HEIGHT - BOTTOM, TOP);
  const at = (row) => [x(Math.log2(row.bytes)), y(row.value)];
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": say("chart-label", { metric: advice.metric }) });
  svg.append(...axes(advice, x, y), line(advice.keep * full.value, y, "keep"));
  for (const [, rows] of groups(advice.rows)) {
    const style = `${CLASSES[rows[0].dtype] ?? "f32"}${rows[0].fitted ? " fitted" : ""}`;
    const sorted = [...rows].sort((a, b) => a.bytes - b.bytes);
    svg.append(draw("polyline", { class: `series ${style}`, points: sorted.map((row) => at(row).join(",")).join(" ") }));
    for (const row of sorted) svg.append(...point(row, at(row), [y(low(row)), y(high(row))], style, advice.metric));
  }
  const steps = front.map((row, place) => `${place ? `H${at(row)[0]}V` : `M${at(row)[0]},`}${at(row)[1]}`).join("");
  const [bestX, bestY] = at(advice.recommended);
  svg.append(draw("path", { class: "front", d: steps }), draw("circle", { class: "best", cx: bestX, cy: bestY, r: 9 }));
  return svg;
}

function scale(values, from, to) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const spread = high - low || 1;
  const scaled = (value) => from + ((value - low) / spread) * (to - from);
  return Object.assign(scaled, { low, high });
}

function axes(advice, x, y) {
  const found = [];
  for (let power = Math.ceil(x.low); power <= Math.floor(x.high); power += 1) {
    found.push(draw("line", { class: "grid", x1: x(power), x2: x(power), y1: TOP, y2: HEIGHT - BOTTOM }));
    found.push(draw("text", { x: x(power), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, number(2 ** power)));
  }
  for (let tick = 0; tick <= 4; tick += 1) {
    const value = y.low + (tick / 4) * (y.high - y.low);
    found.push(line(value, y, "grid"), draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, 3)));
  }
  found.push(draw("text", { x: WIDTH / 2, y: HEIGHT - 8, "text-anchor": "middle" }, `${say("bytes")} → ${advice.metric}`));
  return found;
}

function line(value, y, style) {
  return draw("line", { class: style, x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) });
}

function point(row, [x, y], [low, high], style, metric) {
  const words = `${nameOf(row)}: ${metric} ${number(row.value, 3)}, ${say("of-full", { share: number(100 * row.share, 1) })}`;
  const dot = draw("circle", { class: `point ${style}`, cx: x, cy: y, r: 3.5 }, draw("title", {}, words));
  return [draw("line", { class: `range ${style}`, x1: x, x2: x, y1: low, y2: high }), dot];
}

function keys(advice) {
  const items = groups(advice.rows).map(([name, rows]) => {
    const style = `${CLASSES[rows[0].dtype] ?? "f32"}${rows[0].fitted ? " fitted" : ""}`;
    return key(name, draw("line", { class: `series ${style}`, x1: 0, x2: 24, y1: 6, y2: 6 }));
  });
  items.push(key(say("front"), draw("path", { class: "front", d: "M0,6H24" })));
  items.push(key(say("keep", { share: number(100 * advice.keep) }), draw("line", { class: "keep", x1: 0, x2: 24, y1: 6, y2: 6 })));
  items.push(key(say("use", { name: nameOf(advice.recommended) }), draw("circle", { class: "best", cx: 12, cy: 6, r: 4 })));
  return make("ul", { class: "keys" }, ...items);
}

function key(name, mark) {
  return make("li", {}, draw("svg", { viewBox: "0 0 24 12", "aria-hidden": "true" }, mark), ` ${name}`);
}

function table(advice, front) {
  const best = advice.recommended;
  const head = [say("form"), say("bytes"), advice.metric, say("share")].map((name) => make("th", { scope: "col" }, name));
  const rows = front.map((row) => {
    const cells = [nameOf(row), number(row.bytes), number(row.value, 3), shareOf(row)];
    const isBest = row.dim === best.dim && row.dtype === best.dtype && Boolean(row.fitted) === Boolean(best.fitted);
    return make("tr", isBest ? { class: "use" } : {}, ...cells.map((cell) => make("td", {}, cell)));
  });
  return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
}

function shareOf(row) {
  const [share, low, high] = [row.share, row.share_low, row.share_high].map((value) => number(100 * value, 1));
  return `${share} % [${low}, ${high}]`;
}
