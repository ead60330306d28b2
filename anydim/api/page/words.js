// The words of the page in English and Chinese; en.json and zh.json have the same keys. It knows the page's marks alone.

import { byId } from "./dom.js";

const LANGUAGES = { en: "en", zh: "zh-CN" };
const KEPT = "anydim-language";
const words = {};
const listeners = [];

export async function loadWords() {
  for (const name of Object.keys(LANGUAGES)) words[name] = await (await fetch(`page/${name}.json`)).json();
  speak(kept() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"));
  byId("language").addEventListener("click", () => speak(current() === "en" ? "zh" : "en"));
}

// A sentence with its {names} filled in.
export function say(key, values = {}) {
  return (words[current()]?.[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

export function onLanguage(listener) {
  listeners.push(listener);
}

export function current() {
  return document.documentElement.lang.startsWith("zh") ? "zh" : "en";
}

export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(LANGUAGES[current()], options).format(value);
}

function speak(language) {
  document.documentElement.lang = LANGUAGES[language];
  remember(language);
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = say(element.dataset.words);
  listeners.forEach((listener) => listener());
}

function kept() {
  try {
    const language = localStorage.getItem(KEPT);
    return language in LANGUAGES ? language : null;
  } catch {
    return null; // storage may be switched off
  }
}

function remember(language) {
  try {
    localStorage.setItem(KEPT, language);
  } catch {
    // it is asked again next time
  }
}
