// What went wrong, in one place at the top of the page: the server's own sentence, with what can be done about it.

import { byId } from "./dom.js";
import { get } from "./client.js";
import { say } from "./words.js";

const AGAIN = 3000; // milliseconds between two looks for a server that was lost
let watch = 0;
let shown = null;
let isBySide = false;

// What happened by the side, not by the user's doing, leaves what is shown in its place; a lost server concerns all.
export function tell(problem, bySide = false) {
  if (shown && bySide && problem.kind !== "lost") return;
  shown = problem;
  isBySide = bySide;
  repeat();
  byId("notice").hidden = false;
  if (problem.kind === "lost" && !watch) watch = setInterval(look, AGAIN);
}

// The same in the language of now.
export function repeat() {
  if (!shown) return;
  const values = { message: shown.message, wait: shown.wait, status: shown.status };
  const key = shown.kind === "busy" && !shown.wait ? "busy-soon" : shown.kind;
  byId("notice").textContent = say(`problem-${key}`, values).trim();
}

// What happened by the side is over, and the server is there.
export function recover() {
  clear(isBySide ? null : "lost");
}

export function clear(kind = null) {
  if (!shown || (kind && shown.kind !== kind)) return;
  shown = null;
  byId("notice").hidden = true;
  clearInterval(watch);
  watch = 0;
}

async function look() {
  try {
    await get("health");
  } catch (error) {
    if (error.kind === "lost") return;
  }
  clear("lost");
}
