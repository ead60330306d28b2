// The query's best texts at several dimensions side by side, each against the order of the full vectors.

import { byId, make } from "./dom.js";
import { ranked, spread } from "./vectors.js";
import { number, say } from "./words.js";

const TOP = 5;
const FIRST = 3; // columns beside the slider's before anybody chooses

export function offerColumns(dimensions, changed) {
  const offered = spread(dimensions);
  const chosen = new Set([...offered.slice(0, FIRST - 1), dimensions.at(-1)]);
  const boxes = offered.map((dimension) => {
    const box = make("input", { type: "checkbox", value: dimension });
    box.checked = chosen.has(dimension);
    box.addEventListener("change", changed);
    return make("label", {}, box, String(dimension));
  });
  byId("columns").replaceChildren(byId("columns").querySelector("legend"), ...boxes);
}

export function drawResults(query, texts, vectors, dimension, width) {
  const full = ranked(query, vectors, width).map((found) => found.place);
  const boxes = [...byId("columns").querySelectorAll("input:checked")].map((box) => Number(box.value));
  const columns = [dimension, ...boxes.filter((other) => other !== dimension)];
  byId("results").replaceChildren(
    ...columns.map((each, at) => column(ranked(query, vectors, each), texts, full, each, at === 0)),
  );
}

function column(order, texts, full, dimension, isNow) {
  const best = order.slice(0, TOP);
  const same = best.filter((found) => full.indexOf(found.place) < TOP).length;
  const head = make("h3", {}, String(dimension), make("span", {}, say("kept", { same, of: best.length })));
  const rows = best.map((found, rank) => row(found, rank, texts[found.place], full.indexOf(found.place)));
  const article = make("article", { class: isNow ? "result now" : "result", "data-dimension": dimension });
  article.append(head, make("ol", {}, ...rows));
  return article;
}

function row(found, rank, text, before) {
  const moved = before === rank ? "" : say(before > rank ? "up" : "down", { ranks: Math.abs(before - rank) });
  const mark = make("em", { class: moved ? "moved" : "" }, moved);
  const words = make("div", {}, text, " ", mark);
  const score = make("span", {}, number(found.score, 3));
  return make("li", { "data-place": found.place, "data-score": found.score }, make("b", {}, String(rank + 1)), words, score);
}
