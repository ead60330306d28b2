// The heat map: a table of cosines whose colours span what the texts show. Arrow keys walk through its cells.

import { byId, make } from "./dom.js";
import { number, say } from "./words.js";

const MOST = 64; // texts in the map; all of them are ranked
const MANY = 14; // texts above which cells hold colour alone
const STOPS = [[238, 244, 251], [127, 176, 224], [11, 60, 120]];
let place = [0, 1];

export function drawHeat(names, values, language) {
  const count = Math.min(names.length, MOST);
  const sides = [...Array(count).keys()];
  const range = rangeOf(values, count);
  const table = byId("heat").querySelector("table");
  const same = table?.dataset.of === JSON.stringify([names, language]) ? table : null;
  const drawn = same ?? build(names, sides, language);
  for (const cell of drawn.querySelectorAll("td")) paint(cell, values[cell.dataset.row][cell.dataset.column], range);
  if (!same) byId("heat").replaceChildren(drawn, make("p", { class: "scale" }), over(names.length));
  const [low, high] = range.map((value) => number(value, 3));
  byId("heat").querySelector(".scale").replaceChildren(low, make("span", { class: "bar" }), high);
  describe(drawn, names);
}

function rangeOf(values, count) {
  const off = values.slice(0, count).flatMap((row, one) => row.slice(0, count).filter((_, other) => other !== one));
  return off.length ? [Math.min(...off), Math.max(...off)] : [0, 1];
}

function build(names, sides, language) {
  const table = make("table", { class: sides.length > MANY ? "heat many" : "heat", "data-of": JSON.stringify([names, language]) });
  const corner = make("th", { class: "name", scope: "col" }, "");
  const head = sides.map((side) => make("th", { scope: "col", title: names[side] }, String(side + 1)));
  table.append(make("thead", {}, make("tr", {}, corner, ...head)));
  const body = make("tbody");
  for (const row of sides) {
    const cells = sides.map((column) => make("td", { tabindex: "-1", "data-row": row, "data-column": column }));
    const name = make("th", { scope: "row", class: "name", title: names[row] }, `${row + 1} ${names[row]}`);
    body.append(make("tr", {}, name, ...cells));
  }
  table.append(body);
  place = [Math.min(place[0], sides.length - 1), Math.min(place[1], sides.length - 1)];
  at(table, place)?.setAttribute("tabindex", "0");
  table.addEventListener("keydown", (event) => walk(event, table, sides.length));
  for (const kind of ["focusin", "mouseover"]) table.addEventListener(kind, (event) => choose(event.target, table, names));
  return table;
}

function paint(cell, value, [low, high]) {
  const share = Math.min(1, Math.max(0, high > low ? (value - low) / (high - low) : 1));
  const [first, second] = share < 0.5 ? STOPS : STOPS.slice(1);
  const part = share < 0.5 ? 2 * share : 2 * share - 1;
  const colour = first.map((from, channel) => Math.round(from + part * (second[channel] - from)));
  cell.style.backgroundColor = `rgb(${colour.join(",")})`;
  cell.style.color = share > 0.62 ? "#fff" : "#14202e";
  cell.dataset.value = value;
  cell.textContent = number(value, 2);
}

function walk(event, table, count) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const ends = { Home: 0, End: count - 1 };
  const step = steps[event.key];
  if (!step && !(event.key in ends)) return;
  event.preventDefault();
  const next = step ? place.map((side, axis) => Math.min(count - 1, Math.max(0, side + step[axis]))) : [place[0], ends[event.key]];
  at(table, next).focus();
}

function choose(cell, table, names) {
  if (cell.tagName !== "TD") return;
  at(table, place)?.setAttribute("tabindex", "-1");
  place = [Number(cell.dataset.row), Number(cell.dataset.column)];
  cell.setAttribute("tabindex", "0");
  describe(table, names);
}

function describe(table, names) {
  const cell = at(table, place);
  if (!cell) return;
  const values = { one: names[place[0]], other: names[place[1]], value: number(Number(cell.dataset.value), 4) };
  byId("pair").textContent = say("pair", values);
}

function at(table, [row, column]) {
  return table.querySelector(`td[data-row="${row}"][data-column="${column}"]`);
}

function over(count) {
  return make("p", { class: "note" }, count > MOST ? say("too-many", { most: MOST, count }) : "");
}
