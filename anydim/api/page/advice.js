// The file that `anydim advise` writes, advise.json: read from the user's disk, checked, and handed to the chart. It is
// not sent anywhere.

import { byId } from "./dom.js";
import { drawChart } from "./chart.js";
import { say } from "./words.js";

const LARGEST = 10_000_000;
const NUMBERS = ["dim", "bytes", "value", "share", "share_low", "share_high"];
let shown = null;

export function listenForAdvice() {
  byId("advice-file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await read(file);
  });
}

export function drawAdvice() {
  if (shown) byId("chart").replaceChildren(...drawChart(shown));
}

async function read(file) {
  const wrong = byId("advice-error");
  shown = file.size > LARGEST ? null : checked(await file.text());
  wrong.hidden = shown !== null;
  wrong.textContent = shown ? "" : say("advice-wrong", { name: file.name });
  byId("chart").replaceChildren();
  drawAdvice();
}

function checked(text) {
  try {
    const advice = JSON.parse(text);
    const rows = [...advice.rows, advice.recommended];
    const right = rows.every((row) => NUMBERS.every((name) => Number.isFinite(row[name])) && row.bytes > 0 && typeof row.dtype === "string");
    return right && advice.rows.length && Number.isFinite(advice.keep) && typeof advice.metric === "string" ? advice : null;
  } catch {
    return null;
  }
}
