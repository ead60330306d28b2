// Requests to the server that the page came from, with the key in a header and never in an address. What the server
// says of a failure is kept in its own words. It knows HTTP; it draws nothing.

const KEPT = "anydim-key"; // of this tab alone, gone when it closes
let inMemory = "";

export class Problem extends Error {
  constructor(kind, message, status = 0, wait = 0) {
    super(message);
    this.kind = kind; // lost, key, busy or refused
    this.status = status;
    this.wait = wait; // seconds, from Retry-After
  }
}

export function key() {
  try {
    return sessionStorage.getItem(KEPT) ?? inMemory;
  } catch {
    return inMemory;
  }
}

export function useKey(value) {
  inMemory = value;
  try {
    if (value) sessionStorage.setItem(KEPT, value);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // it stays in memory
  }
}

export async function get(path) {
  return (await ask(path, {})).json();
}

export async function getText(path) {
  return (await ask(path, {})).text();
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", body: JSON.stringify(body), headers })).json();
}

async function ask(path, options) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${inBytes(key())}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch {
    throw new Problem("lost", "");
  }
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

// Headers carry bytes: each of UTF-8's as one character.
function inBytes(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

async function problemOf(answer) {
  const kinds = { 401: "key", 429: "busy" };
  const wait = Number.parseInt(answer.headers.get("Retry-After") ?? "", 10) || 0;
  const text = await answer.text();
  return new Problem(kinds[answer.status] ?? "refused", sentence(text) || `HTTP ${answer.status}`, answer.status, wait);
}

function sentence(text) {
  try {
    const body = JSON.parse(text);
    const found = body.error?.message ?? body.error ?? body.message ?? body.detail;
    return typeof found === "string" ? found : "";
  } catch {
    return text.slice(0, 300);
  }
}
