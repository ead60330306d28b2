// The question for the key: a dialog that stays until the server takes one.

import { byId } from "./dom.js";
import { key, useKey } from "./client.js";

let waiting = null;

export function listenForKey(entered) {
  waiting = entered;
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key").value.trim());
    byId("key").value = "";
    byId("ask").close();
    waiting();
  });
  byId("forget").addEventListener("click", () => {
    useKey("");
    location.reload();
  });
}

export function askForKey(message) {
  byId("ask-wrong").textContent = key() ? message : "";
  useKey("");
  byId("forget").hidden = true;
  if (!byId("ask").open) byId("ask").showModal();
  byId("key").focus();
}

export function keyWorks() {
  byId("forget").hidden = !key();
}
