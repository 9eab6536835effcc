// The search view. Everything that comes from the server is shown as text, never as markup.
import { showCorpus } from "./map.js";

const $ = (id) => document.getElementById(id);
const wait = 120; // milliseconds without a key before an answer is asked for
let info = null;
let asked = null; // stops the search that is under way
let current = -1;
let hits = [];

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export async function ask(path, options = {}) {
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askToken();
    return ask(path, options);
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error.message);
  return found;
}

function askToken() {
  return new Promise((resolve) => {
    const dialog = $("ask-token");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("token", $("token").value.replace(/[^!-~]/g, "")); // headers take no other characters
      resolve();
    }, { once: true });
    if (!dialog.open) dialog.showModal();
  });
}

const number = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
const shown = (value) => (typeof value === "number" ? String(value) : String(value));

// Filters

function offerFilters() {
  for (const facet of info.facets.fields.slice(0, 6)) {
    const label = make("label", {}, `${facet.field}`);
    if (facet.values) {
      const select = make("select", { "data-field": facet.field, "data-sign": facet.lists ? "$contains" : "", onchange: changed });
      select.append(make("option", { value: "" }, "any"));
      facet.values.forEach(({ value, count }) => {
        select.append(make("option", { value: JSON.stringify(value) }, `${shown(value)} (${count})`));
      });
      label.append(select);
    } else {
      for (const [sign, bound] of [[">=", facet.least], ["<=", facet.greatest]]) {
        label.append(make("input", {
          type: "number", step: "any", "data-field": facet.field, "data-sign": sign, placeholder: bound,
          "aria-label": `${facet.field} ${sign === ">=" ? "at least" : "at most"}`, oninput: changed,
        }));
      }
    }
    $("filters").append(label);
  }
  const { sample, documents } = info.facets;
  if (sample < documents) $("filters").title = `Counts are those of ${sample} of ${documents} documents.`;
}

function changed(event) {
  const label = event.target.closest("label");
  label.classList.toggle("set", [...label.querySelectorAll("select, input")].some((input) => input.value));
  soon();
}

function filter() {
  const wanted = {};
  for (const input of $("filters").querySelectorAll("select, input")) {
    if (!input.value) continue;
    const { field, sign } = input.dataset;
    const value = input.type === "number" ? Number(input.value) : JSON.parse(input.value);
    wanted[field] = sign ? { ...wanted[field], [sign]: value } : value;
  }
  return Object.keys(wanted).length ? wanted : null;
}

// Search

let timer = 0;
export function soon(delay = wait) {
  clearTimeout(timer);
  timer = setTimeout(search, delay);
}

async function search() {
  if (asked) asked.abort(); // an answer to what is no longer asked must not be shown
  const query = $("query").value.trim();
  const address = new URL(location.href);
  if (query) address.searchParams.set("q", query);
  else address.searchParams.delete("q");
  history.replaceState(null, "", address);
  if (!query) return show([], "");
  const mine = (asked = new AbortController());
  $("hits").classList.add("old");
  const start = performance.now();
  try {
    const body = JSON.stringify({ query, k: 10, filter: filter(), marks: true });
    const found = await ask("search", { method: "POST", body, signal: mine.signal });
    if (mine.signal.aborted) return;
    const ms = Math.max(1, Math.round(performance.now() - start));
    show(found.hits, found.hits.length ? `${found.hits.length} answers in ${ms} ms` : "Nothing matches.");
  } catch (error) {
    if (!mine.signal.aborted) show([], error.message, true);
  }
}

function show(found, status, wrong = false) {
  hits = found;
  current = -1;
  $("hits").replaceChildren(...found.map(hitOf));
  $("hits").classList.remove("old");
  $("status").textContent = status;
  $("status").classList.toggle("wrong", wrong);
  $("legend").hidden = !found.length;
}

function hitOf(hit, place) {
  const { passage } = hit;
  const title = hit.title || shown(hit.id);
  let path = passage.heading || "";
  if (path === title) path = "";
  else if (path.startsWith(`${title} > `)) path = path.slice(title.length + 3);
  const why = make("button", { type: "button", class: "ask", "aria-expanded": "false" }, "Why?");
  const fields = Object.entries(hit.fields).slice(0, 5).map(([name, value]) => make("span", {}, make("b", {}, `${name} `), shown(value)));
  const element = make("li", { tabindex: "-1" },
    make("div", { class: "head" },
      make("h3", {}, make("button", { type: "button", tabindex: "-1" }, title)),
      make("span", { class: "similarity", title: "similarity" }, number(hit.similarity))),
    path ? make("p", { class: "path" }, path.replaceAll(" > ", " › ")) : null,
    make("p", { class: "passage" }, ...marked(excerpt(passage))),
    make("div", { class: "foot" }, make("div", { class: "fields" }, ...fields), why));
  why.addEventListener("click", (event) => {
    event.stopPropagation();
    explain(hit, element, why);
  });
  element.addEventListener("click", (event) => {
    if (event.target.closest(".why") || String(getSelection())) return;
    move(place);
    open(hit);
  });
  return element;
}

function excerpt({ text, sentence, words, part }) {
  // Few lines are shown: they must have the best sentence. Empty lines between them are left out.
  const late = sentence && sentence[1] - part[0] > 320;
  return { text, sentence, words, part: [late ? sentence[0] : part[0], part[1]], close: true };
}

function marked({ text, sentence, words, part, close = false }) {
  // Offsets count characters as Python does: a pair of surrogates is one.
  const letters = [...text];
  const [begin, end] = part;
  const cuts = new Set([begin, end, ...(sentence || []), ...words.flat()].filter((at) => at >= begin && at <= end));
  const places = [...cuts].sort((a, b) => a - b);
  const pieces = begin ? ["… "] : [];
  let line = null;
  for (let i = 0; i + 1 < places.length; i++) {
    const [from, to] = [places[i], places[i + 1]];
    let piece = letters.slice(from, to).join("");
    if (close) piece = piece.replace(/\n\s*\n\s*/g, "\n");
    if (words.some(([a, b]) => a <= from && to <= b)) piece = make("mark", { class: "word" }, piece);
    if (sentence && sentence[0] <= from && to <= sentence[1]) {
      if (!line) pieces.push((line = make("mark", { class: "sentence" })));
      line.append(piece);
    } else pieces.push(piece);
  }
  if (end < letters.length) pieces.push(" …");
  return pieces;
}

// Why

const sources = { meaning: "meaning", title: "title of the document", beginning: "beginning of the document", mean: "rest of the document" };

async function explain(hit, element, button) {
  const there = element.querySelector(".why");
  if (there) {
    there.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.setAttribute("aria-expanded", "true");
  const box = make("div", { class: "why" }, "…");
  element.append(box);
  try {
    const wanted = new URLSearchParams({ query: $("query").value.trim(), id: hit.key });
    if (filter()) wanted.set("filter", JSON.stringify(filter()));
    const why = await ask(`explain?${wanted}`);
    box.replaceChildren(...rowsOf(why.shares), make("p", {}, said(why)));
  } catch (error) {
    box.textContent = error.message;
  }
}

function rowsOf(shares, inner = "") {
  const most = Math.max(...shares.map((row) => Math.abs(row.share)), 1e-9);
  const small = shares.filter((row) => row.source === "term" && Math.abs(row.share) < most / 50);
  const rows = shares.filter((row) => !small.includes(row)).map((row) => {
    const term = row.source === "term";
    const kind = term ? "term" : row.source in sources && row.source !== "meaning" ? "document" : "";
    let name = term ? row.term.replace("##", "…") : sources[row.source] || row.source;
    if (row.rank) name = `${name}, rank ${row.rank}`;
    else if (row.shares) name = `${name}, not found`;
    const bar = make("div", { class: `bar ${kind} ${row.share < 0 ? "less" : ""}` });
    bar.style.width = `${(100 * Math.abs(row.share)) / most}%`;
    const line = make("div", { class: `row ${inner}` }, make("span", {}, name), bar, make("span", { class: "number" }, number(row.share)));
    return row.shares && row.shares.length ? [line, ...rowsOf(row.shares, "of")] : [line];
  });
  if (small.length) {
    const sum = small.reduce((all, row) => all + row.share, 0);
    rows.push([make("div", { class: `row ${inner}` }, make("span", {}, `${small.length} other terms`), make("span"), make("span", { class: "number" }, number(sum)))]);
  }
  return rows.flat();
}

function said(why) {
  if (info.several) return "The number is a sum over the models: the higher a model ranks a document, the more it adds. It means nothing outside this list.";
  const total = why.shares.reduce((all, row) => all + row.share, 0);
  const sum = `The shares add up to ${number(total)}.`;
  if (info.reranks) return `${sum} That made it a candidate; a cross-encoder then gave the number above.`;
  return why.found_by === "beginning" ? `${sum} Here the beginning of the document is nearer than any of its passages.` : sum;
}

// Documents

async function open(hit) {
  const dialog = $("document");
  try {
    const found = await ask(`documents?id=${encodeURIComponent(hit.key)}`);
    $("document-title").textContent = found.title || shown(found.id);
    const fields = Object.entries({ id: found.id, ...found.fields });
    $("document-fields").replaceChildren(...fields.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, shown(value))]));
    const letters = [...found.body];
    const { start, end } = hit.passage || { start: 0, end: 0 };
    const here = make("span", { class: "here" }, ...(hit.passage ? marked({ ...hit.passage, part: [0, [...hit.passage.text].length] }) : []));
    $("document-body").replaceChildren(letters.slice(0, start).join(""), here, letters.slice(end).join(""));
    if (!dialog.open) dialog.showModal();
    $("document-body").focus({ preventScroll: true });
    if (start) here.scrollIntoView({ block: "start" });
    else dialog.scrollTop = 0;
  } catch (error) {
    $("status").textContent = error.message;
    $("status").classList.add("wrong");
  }
}

// Keys and views

function move(place) {
  const items = [...$("hits").children];
  if (!items.length) return;
  current = Math.max(-1, Math.min(place, items.length - 1));
  items.forEach((item, at) => item.setAttribute("aria-current", String(at === current)));
  if (current < 0) $("query").focus();
  else items[current].scrollIntoView({ block: "nearest" });
}

export function view(name) {
  for (const each of ["search", "corpus"]) {
    $(each).hidden = each !== name;
    $(`to-${each}`).setAttribute("aria-pressed", String(each === name));
  }
  if (name === "corpus") showCorpus();
  else $("query").focus();
}

export function searchFor(text) {
  $("query").value = text;
  view("search");
  soon(0);
}

function keys(event) {
  if ($("document").open || $("ask-token").open || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = /^(INPUT|SELECT)$/.test(event.target.tagName);
  const inQuery = event.target === $("query");
  if (event.key === "/" && !typing) {
    view("search");
    $("query").select();
  } else if ($("search").hidden || (typing && !inQuery)) return;
  else if (event.key === "ArrowDown") move(current + 1);
  else if (event.key === "ArrowUp") move(current - 1);
  else if (event.key === "Enter" && !event.target.closest("button")) {
    if (hits.length) open(hits[Math.max(0, current)]);
  } else if (event.key === "Escape") {
    if (inQuery && current < 0) $("query").value = "", soon(0);
    else move(-1);
  } else if (event.key === "w" && !typing) $("hits").children[Math.max(0, current)]?.querySelector(".ask").click();
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", keys);
$("query").addEventListener("input", () => soon());
$("query").addEventListener("focus", () => move(-1));
$("close").addEventListener("click", () => $("document").close());
$("document").addEventListener("click", (event) => event.target === $("document") && $("document").close());
$("to-search").addEventListener("click", () => view("search"));
$("to-corpus").addEventListener("click", () => view("corpus"));

if (location.hash.startsWith("#token=")) {
  let token = location.hash.slice(7);
  try {
    token = decodeURIComponent(token);
  } catch {} // it has a percent sign of its own
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname + location.search);
}
info = await ask("info").catch((error) => {
  $("status").textContent = error.message;
  $("status").classList.add("wrong");
  return null;
});
if (info) {
  document.title = info.name || "Search";
  $("name").textContent = info.name;
  $("query").placeholder = `Search ${info.documents.toLocaleString("en")} documents`;
  $("legend").textContent = info.meaning;
  offerFilters();
  const query = new URLSearchParams(location.search).get("q");
  if (query) searchFor(query);
}
