// The requests of the page as a command and as a program. They name a variable for the key, never the key itself.

import { byId } from "./dom.js";
import { say } from "./words.js";

const VARIABLE = "ANYDIM_API_KEY";

export function drawSnippets(bodies, secured) {
  byId("curl").textContent = bodies.map((body) => curl(body, secured)).join("\n\n");
  byId("python").textContent = python(bodies, secured);
}

export function listenForCopies() {
  for (const name of ["curl", "python"]) byId(`copy-${name}`).addEventListener("click", () => copy(byId(name)));
}

function base() {
  return new URL("v1", document.baseURI).href;
}

function curl(body, secured) {
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  const head = secured ? ` \\\n  -H "Authorization: Bearer $${VARIABLE}"` : "";
  return `curl ${base()}/embeddings \\\n  -H 'Content-Type: application/json'${head} \\\n  -d '${json}'`;
}

function python(bodies, secured) {
  const lines = [...(secured ? ["import os", ""] : []), "from openai import OpenAI", ""];
  const key = secured ? `os.environ[${quoted(VARIABLE)}]` : quoted("none");
  lines.push(`client = OpenAI(base_url=${quoted(base())}, api_key=${key})`);
  const names = bodies.length > 1 ? ["query", "texts"] : ["texts"];
  bodies.forEach(({ model, input, ...more }, place) => {
    lines.push(`${names[place]} = client.embeddings.create(`, `    model=${quoted(model)},`, "    input=[");
    lines.push(...input.map((text) => `        ${quoted(text)},`), "    ],");
    lines.push(`    extra_body=${dictionary(more)},`, ")");
  });
  if (bodies.length > 1) {
    lines.push("for row in texts.data:", "    print(sum(a * b for a, b in zip(query.data[0].embedding, row.embedding)))");
  } else {
    lines.push("print([row.embedding[:4] for row in texts.data])");
  }
  return lines.join("\n");
}

function dictionary(fields) {
  return `{${Object.entries(fields).map(([name, value]) => `${quoted(name)}: ${JSON.stringify(value)}`).join(", ")}}`;
}

// A JSON string is a Python string too.
function quoted(text) {
  return JSON.stringify(text);
}

async function copy(block) {
  let done = true;
  try {
    await navigator.clipboard.writeText(block.textContent);
  } catch {
    done = copySelected(block); // an address without TLS has no clipboard
  }
  byId("copied").textContent = say(done ? "copied" : "not-copied");
}

function copySelected(block) {
  getSelection().selectAllChildren(block);
  return document.execCommand("copy");
}
