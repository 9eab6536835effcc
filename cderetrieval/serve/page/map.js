// The view of the corpus: a map of sampled documents, terms, drift, and one query in three contexts.
import { ask, make, searchFor } from "./app.js";

const $ = (id) => document.getElementById(id);
const svg = "http://www.w3.org/2000/svg";
let shown = false;

export async function showCorpus() {
  if (shown) return;
  shown = true;
  $("about").textContent = "…";
  try {
    const found = await ask("context");
    about(found);
    drawMap(found.points);
    showTerms(found.terms);
    showFacts(found);
  } catch (error) {
    $("about").textContent = error.message;
    shown = false;
  }
}

function about({ context, points, documents }) {
  const many = points.length.toLocaleString("en");
  let text = "This model takes no context.";
  if (context && context.source === "own") text = `${many} documents were sampled from the corpus. Every text and query is read beside them.`;
  else if (context && context.source === "null") text = "Texts are read without a context here.";
  else if (context) text = `${many} texts stand for the corpus (${context.source}). Every text and query is read beside them.`;
  else if (points.length) text += ` The map shows ${many} of ${documents.toLocaleString("en")} documents.`;
  if (points.length) text += " Near points are alike; the plane shows where they differ most.";
  $("about").textContent = text;
}

function drawMap(points) {
  const [width, height, edge] = [880, 560, 24];
  const draw = document.createElementNS(svg, "svg");
  draw.setAttribute("viewBox", `0 0 ${width} ${height}`);
  draw.setAttribute("role", "group");
  draw.setAttribute("aria-label", "Map of sampled documents");
  const spread = (name) => {
    const values = points.map((point) => point[name]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return (value) => (most > least ? (value - least) / (most - least) : 0.5);
  };
  const [across, up] = [spread("x"), spread("y")];
  for (const point of points) {
    const dot = document.createElementNS(svg, "circle");
    dot.setAttribute("cx", edge + across(point.x) * (width - 2 * edge));
    dot.setAttribute("cy", height - edge - up(point.y) * (height - 2 * edge));
    dot.setAttribute("r", points.length > 300 ? 5 : 6.5);
    if (point.lead) {
      const title = document.createElementNS(svg, "title");
      title.textContent = point.title;
      dot.append(title);
      dot.setAttribute("tabindex", "0");
      dot.setAttribute("role", "button");
      dot.setAttribute("aria-label", point.title);
      const tell = () => ($("point").textContent = point.title);
      dot.addEventListener("mouseenter", tell);
      dot.addEventListener("focus", tell);
      dot.addEventListener("click", () => searchFor(point.lead));
      dot.addEventListener("keydown", (event) => event.key === "Enter" && searchFor(point.lead));
    } else dot.setAttribute("class", "gone");
    draw.append(dot);
  }
  $("map").replaceChildren(...(points.length ? [draw] : []));
  $("point").textContent = points.some((point) => point.lead) ? "Point at a document to see its title; click to search for it." : "";
}

function showTerms({ documents, common, rare }) {
  const list = (title, text, terms) => make("div", {}, make("h2", {}, title), make("p", { class: "soft" }, text),
    make("div", { class: "terms" }, ...terms.map((one) => make("span", {},
      make("button", { type: "button", onclick: () => searchFor(one.term) }, one.term), " ", make("small", {}, String(one.documents))))));
  const many = documents.toLocaleString("en");
  const columns = [];
  if (common.length) columns.push(list("Common terms", `in how many of ${many} documents; they tell little here`, common));
  if (rare.length) columns.push(list("Rare terms", "in one or two of them; they tell most", rare));
  $("terms").replaceChildren(...columns);
}

function showFacts(found) {
  const size = (bytes) => (bytes < 2 ** 20 ? `${Math.ceil(bytes / 2 ** 10)} KB` : `${(bytes / 2 ** 20).toFixed(1)} MB`);
  const facts = [["documents", found.documents.toLocaleString("en")], ["passages", found.passages.toLocaleString("en")], ["model", found.models.join(" + ")]];
  const dimensions = found.dimensions.filter((one) => one !== null);
  if (dimensions.length) facts.push(["dimensions", dimensions.map((one) => one.toLocaleString("en")).join(", ")]);
  if (found.fusion) facts.push(["fusion", found.fusion]);
  if (found.bytes) facts.push(["size on disk", size(found.bytes)]);
  const { context } = found;
  if (context) facts.push(["context", `${context.documents.toLocaleString("en")} documents, ${context.source}, seed ${context.seed}`], ["digest", context.digest]);
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  if (!context) return;
  $("comparison").hidden = false;
  $("compare-about").textContent = "The beginnings of up to 128 sampled documents, ranked without a context, in a neutral one, and in the corpus's own. The first time takes a while: they are embedded in all three.";
  if (context.source === "own") measureDrift();
}

async function measureDrift() {
  const value = make("dd", {}, make("button", { type: "button", onclick: measure }, "measure"));
  $("facts").append(make("dt", {}, "drift"), value);
  async function measure() {
    value.textContent = "a fresh sample is embedded …";
    try {
      const { drift } = await ask("context/drift");
      value.textContent = drift === null ? "not known" : `shift ${drift.shift.toFixed(4)} (p = ${drift.p_value.toFixed(3)}): ${drift.stale ? "the corpus has moved away, refresh the context" : "the context still stands for the corpus"}`;
    } catch (error) {
      value.textContent = error.message;
    }
  }
}

const forms = { null: "No context", random: "Neutral", own: "Its own" };

$("compare").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = $("compare-query").value.trim();
  if (!query) return;
  $("compared").textContent = "…";
  try {
    const { contexts } = await ask(`context/compare?${new URLSearchParams({ query, k: 8 })}`);
    $("compared").replaceChildren(...Object.entries(contexts).map(([form, hits]) => make("div", {},
      make("h4", {}, forms[form]),
      make("ol", {}, ...hits.map((hit) => make("li", {}, hit.title, " ", make("span", { class: "similarity" }, hit.similarity.toFixed(3))))))));
  } catch (error) {
    $("compared").textContent = error.message;
  }
});
