// The page: asks for the models, embeds texts once at full width, and lets the slider cut them. Each part draws itself.

import { drawAdvice, listenForAdvice } from "./advice.js";
import { get, key, post } from "./client.js";
import { byId, make } from "./dom.js";
import { drawHeat } from "./heat.js";
import { askForKey, keyWorks, listenForKey } from "./key.js";
import { drawTiles, watchMetrics } from "./metrics.js";
import { clear, recover, repeat, tell } from "./notice.js";
import { drawResults, offerColumns } from "./results.js";
import { drawSnippets, listenForCopies } from "./snippets.js";
import { allowed, decode, similarities } from "./vectors.js";
import { current, loadWords, onLanguage, say } from "./words.js";

const state = { models: [], dimensions: [], embedded: null, isSample: true };

async function start() {
  await loadWords();
  fillSamples();
  listenForKey(connect);
  listenForCopies();
  listenForAdvice();
  byId("texts-form").addEventListener("submit", embed);
  byId("model").addEventListener("change", chooseModel);
  byId("slider").addEventListener("input", drawAll);
  for (const name of ["query", "texts", "instruction"]) byId(name).addEventListener("input", typed);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("ask").open) byId("texts-form").requestSubmit();
  });
  onLanguage(speak);
  await connect();
  watchMetrics((problem) => failed(problem, true), recover);
}

async function connect() {
  try {
    const models = (await get("v1/models")).data.filter((model) => model.task === "embed");
    clear();
    keyWorks();
    byId("docs").hidden = Boolean(key()); // a link carries no key
    state.models = models;
    byId("model").replaceChildren(...models.map((model) => make("option", { value: model.id }, model.id)));
    chooseModel();
  } catch (problem) {
    failed(problem);
  }
}

function failed(problem, bySide = false) {
  if (problem.kind === "key") askForKey(problem.message);
  else if (problem.kind) tell(problem, bySide);
  else throw problem;
}

function model() {
  return state.models.find((each) => each.id === byId("model").value) ?? null;
}

function chooseModel() {
  const chosen = model();
  byId("embed").disabled = !chosen;
  state.embedded = null;
  state.dimensions = chosen ? allowed(chosen.width, chosen.dim_step) : [];
  byId("slider").max = Math.max(0, state.dimensions.length - 1);
  byId("slider").value = state.dimensions.indexOf(chosen?.default_dim);
  if (chosen) offerColumns(state.dimensions, drawAll);
  byId("heat").replaceChildren();
  byId("results").replaceChildren();
  byId("pair").textContent = "";
  tellModel();
  drawAll();
}

function tellModel() {
  const chosen = model();
  byId("served").textContent = chosen ? say("serves", { model: chosen.root, width: chosen.width }) : say("no-model");
  byId("instruction").disabled = !chosen?.instructions;
  byId("instruction-note").textContent = chosen && !chosen.instructions ? say("no-instructions") : say("instruction-hint");
}

const lines = () => byId("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
const dimension = () => state.dimensions[byId("slider").value] ?? 0;

// What the fields ask for, at a dimension: the query first where there is one. A query and documents have prompts of
// their own, so that they are two requests.
function bodies(size) {
  const found = [];
  const query = byId("query").value.trim();
  const instruction = byId("instruction").disabled ? "" : byId("instruction").value.trim();
  const name = model()?.id ?? "";
  if (query) found.push({ model: name, input: [query], output_dim: size, ...(instruction ? { instruction } : { input_type: "query" }) });
  found.push({ model: name, input: lines(), output_dim: size, input_type: "document" });
  return found;
}

async function embed(event) {
  event.preventDefault();
  const chosen = model();
  if (!chosen) return;
  byId("embed").disabled = true;
  byId("outcome").textContent = say("working");
  try {
    await embedWith(chosen);
    clear();
  } catch (problem) {
    byId("outcome").textContent = "";
    failed(problem);
  } finally {
    byId("embed").disabled = !model();
  }
  drawAll();
}

async function embedWith(chosen) {
  const began = performance.now();
  const wanted = bodies(chosen.width);
  const texts = lines();
  const query = wanted.length > 1 ? wanted[0].input[0] : "";
  const answers = await Promise.all(wanted.map((body) => post("v1/embeddings", { ...body, encoding_format: "base64" })));
  if (model() !== chosen) return; // another one was chosen meanwhile
  const vectors = answers.map((answer) => answer.data.map((row) => decode(row.embedding)));
  state.embedded = { texts, vectors: vectors.at(-1), query, asked: query ? vectors[0][0] : null, width: chosen.width };
  const tokens = answers.reduce((sum, answer) => sum + answer.usage.prompt_tokens, 0);
  const time = Math.round(performance.now() - began);
  byId("outcome").textContent = say("done", { count: texts.length, tokens, time });
}

function drawAll() {
  const size = dimension();
  byId("chosen").textContent = size ? say("of-width", { size, width: state.dimensions.at(-1), bytes: 4 * size }) : "";
  byId("slider").setAttribute("aria-valuetext", byId("chosen").textContent);
  if (model()) drawSnippets(bodies(size), Boolean(key()));
  const found = state.embedded;
  document.querySelector("#matrix .empty").hidden = Boolean(found);
  byId("ranking-note").hidden = Boolean(found?.asked);
  if (!found) return;
  drawHeat(found.texts, similarities(found.vectors, size), current());
  if (found.asked) drawResults(found.asked, found.texts, found.vectors, size, found.width);
  else byId("results").replaceChildren();
}

function typed() {
  state.isSample = false;
  if (model()) drawSnippets(bodies(dimension()), Boolean(key()));
}

function fillSamples() {
  byId("query").value = say("sample-query");
  byId("texts").value = say("sample-texts");
}

function speak() {
  if (state.isSample && !state.embedded) fillSamples();
  tellModel();
  repeat();
  drawAll();
  drawTiles();
  drawAdvice();
}

start();
