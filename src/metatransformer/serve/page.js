// All that comes from files and models is put in as text, never as HTML: names of files are a stranger's.
"use strict";

const MOST_CLASSES = 8, MOST_PLACES = 6, MOST_SHOWN = 24;
const at = (id) => document.getElementById(id);
let models = [], kinds = {}, fields = [], asked = 0;

function made(tag, text, more) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  return Object.assign(element, more || {});
}

class Refused extends Error {}

async function ask(path, options) {
  const token = at("token").value.trim();
  const headers = token ? { Authorization: "Bearer " + token } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused("The server does not answer. Is it running?");
  }
  const told = await response.json().catch(() => ({}));
  if (response.ok) return told;
  if (response.status === 401) {
    at("token-line").hidden = false;
    at("token").focus();
  }
  const wait = response.headers.get("Retry-After");
  const words = told.error ? told.error.message : "The server answers with " + response.status + ".";
  throw new Refused(words + (wait ? " Try again in " + wait + " s." : ""));
}

function say(text) { at("status").textContent = text; }

function refuse(error) {
  say("");
  at("problem").textContent = error instanceof Refused ? error.message : "This page met an error: " + error.message;
  at("problem").hidden = false;
}

function chosen() { return models.find((one) => one.name === at("model").value); }

async function load() {
  at("problem").hidden = true;
  try {
    models = (await ask("models")).models;
    for (const one of (await ask("modalities")).modalities) kinds[one.name] = one;
  } catch (error) { refuse(error); return; }
  models = models.filter((one) => Object.keys(one.tasks).length);
  const several = models.some((one) => Object.keys(one.inputs).length > 1);
  const names = Object.keys(kinds).filter((name) => models.some((one) => kindOf(one) === name));
  at("modality").replaceChildren(...names.map((name) => made("option", kinds[name].title, { value: name })));
  if (several) at("modality").append(made("option", "Several together", { value: "" }));
  if (!models.length) refuse(new Refused("This server has no model that predicts; see docs for vectors."));
  listModels();
}

function kindOf(model) {
  const inputs = Object.values(model.inputs);
  return inputs.length > 1 ? "" : inputs[0].modality;
}

function listModels() {
  const own = models.filter((one) => kindOf(one) === at("modality").value);
  at("model").replaceChildren(...own.map((one) => made("option", one.name, { value: one.name })));
  showInputs();
}

function showInputs() {
  const model = chosen();
  clear();
  fields = [];
  at("inputs").replaceChildren();
  if (!model) return;
  const tasks = Object.entries(model.tasks).map(([name, one]) => name + (one.classes ? ": " + one.classes.length + " classes" : ""));
  at("about").textContent = tasks.join(", ") + " · trunk " + model.encoder;
  const joint = Object.keys(model.inputs).length > 1;
  for (const [name, one] of Object.entries(model.inputs)) at("inputs").append(inputField(name, one, joint));
}

function inputField(name, one, joint) {
  const kind = kinds[one.modality], box = made("fieldset"), id = "in-" + fields.length;
  box.append(made("legend", joint ? name + " (" + kind.title + ")" : kind.title));
  const field = { name, columns: one.columns, files: [], kind };
  if (kind.takes.includes("files")) box.append(...fileField(field, id));
  if (kind.takes.includes("texts") || kind.takes.includes("rows")) {
    const words = kind.takes.includes("texts") ? "or a sample as text, one a line" : 'or a row as JSON, {"column": value}';
    box.append(made("label", words, { htmlFor: id + "-text" }));
    field.text = made("textarea", "", { id: id + "-text", spellcheck: false });
    box.append(field.text);
  }
  fields.push(field);
  return box;
}

function fileField(field, id) {
  const drop = made("div", null, { className: "drop" });
  const endings = field.kind.suffixes.slice(0, 8).join(", ");
  const input = made("input", null, { type: "file", id, multiple: true });
  const hint = made("p", endings, { className: "hint", id: id + "-hint" });
  input.setAttribute("aria-describedby", hint.id);
  field.list = made("ul", null, { className: "files" });
  drop.append(made("label", "Files: choose, or drop them here", { htmlFor: id }), input, hint, field.list);
  input.addEventListener("change", () => take(field, [...input.files]));
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); take(field, [...event.dataTransfer.files]); });
  return [drop];
}

function take(field, files) {
  field.files = files;
  for (const old of field.list.querySelectorAll("img")) URL.revokeObjectURL(old.src);
  field.list.replaceChildren(...files.slice(0, MOST_SHOWN).map((file) => {
    const item = made("li");
    if (/^image\/(png|jpeg|webp|gif)$/.test(file.type)) item.append(made("img", null, { src: URL.createObjectURL(file), alt: "" }));
    item.append(made("span", file.name));
    return item;
  }));
  if (files.length > MOST_SHOWN) field.list.append(made("li", "and " + (files.length - MOST_SHOWN) + " more"));
  say(files.length === 1 ? "One file chosen." : files.length + " files chosen.");
}

function clear() {
  at("problem").hidden = true;
  at("result").hidden = at("inside").hidden = at("near").hidden = true;
  say("");
}

function parsed(text, words) {
  try { return JSON.parse(text); } catch { throw new Refused(words + ": must be JSON, as {\"age\": 37}; found something else."); }
}

// Returns the body of a request; of several files or lines only the first where ``first``.
function body(first) {
  const model = chosen(), form = new FormData();
  if (!model) throw new Refused("Choose a model first.");
  form.append("model", model.name);
  if (fields.length > 1) return jointBody(form);
  const [field] = fields, text = field.text ? field.text.value.trim() : "";
  if (text && field.files.length) throw new Refused("Hand in either files or text, not both.");
  if (!text && !field.files.length) throw new Refused("Choose a file" + (field.text ? ", or write a sample." : "."));
  if (text && field.kind.takes.includes("texts") && !text.startsWith("{") && !text.startsWith("[")) {
    const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
    form.append("inputs", JSON.stringify(first ? lines.slice(0, 1) : lines));
  } else if (text) {
    const found = parsed(text, field.kind.title), series = field.kind.takes.includes("files") && Array.isArray(found) && typeof found[0] === "object" && !Array.isArray(found[0]);
    const numbers = Array.isArray(found) && (Array.isArray(found[0]) || typeof found[0] === "number");
    const samples = Array.isArray(found) ? found : [found];
    if (numbers) form.append("inputs", JSON.stringify([found]));
    else form.append("rows", JSON.stringify(first && !series ? samples.slice(0, 1) : samples));
  }
  for (const file of first ? field.files.slice(0, 1) : field.files) form.append("files", file, file.name);
  return form;
}

function jointBody(form) {
  const sample = {};
  fields.forEach((field, number) => {
    const text = field.text ? field.text.value.trim() : "";
    if (field.files.length) {
      const file = field.files[0], name = "input" + number + "-" + file.name;
      form.append("files", file, name);
      sample[field.name] = { file: name };
    } else if (text) sample[field.name] = field.kind.takes.includes("texts") ? text : parsed(text, field.name);
  });
  if (!Object.keys(sample).length) throw new Refused("Hand in at least one of the inputs.");
  form.append("inputs", JSON.stringify([sample]));
  return form;
}

async function predict(event) {
  event.preventDefault();
  const mine = ++asked;
  clear();
  at("predict").disabled = true;
  say("Asking the model …");
  try {
    const told = await ask("predict", { method: "POST", body: body(false) });
    if (mine !== asked) return;
    showPredictions(told);
    const everywhere = told.predictions.some((one) => one.places);  // such an answer says by itself where it is
    await Promise.all([...(everywhere ? [] : [showInside(told.predictions, mine)]), showNear(mine)]);
  } catch (error) { if (mine === asked) refuse(error); } finally { at("predict").disabled = false; }
}

function showPredictions(told) {
  at("predictions").replaceChildren(...told.notes.map((note) => made("p", note, { className: "hint" })));
  for (const one of told.predictions.slice(0, MOST_SHOWN)) at("predictions").append(card(one));
  const more = told.predictions.length - MOST_SHOWN;
  if (more > 0) at("predictions").append(made("p", "and " + more + " more; ask /predict for all."));
  at("result").hidden = false;
  const first = told.predictions[0];
  say(first ? "Answered: " + shown(first.prediction) + (told.predictions.length > 1 ? " and " + (told.predictions.length - 1) + " more." : ".") : "Answered.");
  at("result").focus();
}

function shown(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : value.toPrecision(4);
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

function card(one) {
  const article = made("article"), { key, task, prediction, probabilities, places, series, timestamp, ...rest } = one;
  article.append(made("h3", [series, timestamp].filter(Boolean).join(", ") || key || "sample"));
  article.append(made("p", (places ? "mostly " : "") + (prediction === "" ? "none" : shown(prediction)), { className: "guess" }));
  if (probabilities) article.append(bars(probabilities));
  if (places && places.png) article.append(made("img", null, { src: "data:image/png;base64," + places.png, className: "mask", alt: "The class of every pixel, as colours" }));
  if (places) article.append(legend(places, rest));
  const more = Object.entries(rest).filter(([name, value]) => name !== "confidence" && !(places && name.startsWith("share(")) && value !== null).slice(0, 4);
  if (more.length) article.append(made("small", more.map(([name, value]) => name + ": " + shown(value).slice(0, 80)).join(" · ")));
  return article;
}

function legend(places, shares) {
  const table = made("table"), body = made("tbody");
  table.append(made("caption", "Share of the places", { className: "hint" }), body);
  const all = places.classes.map((name, number) => [name, shares["share(" + name + ")"] || 0, places.colours[number]]);
  for (const [name, value, colour] of all.filter((one) => one[1] > 0).sort((a, b) => b[1] - a[1])) {
    const row = made("tr"), head = made("th", name), swatch = made("span", null, { className: "swatch" });
    swatch.style.backgroundColor = colour;
    head.scope = "row";
    head.prepend(swatch);
    row.append(head, made("td", (100 * value).toFixed(1) + " %"));
    body.append(row);
  }
  return table;
}

function bars(probabilities) {
  const table = made("table"), body = made("tbody");
  table.append(made("caption", "Probabilities", { className: "hint" }), body);
  const all = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, value] of all.slice(0, MOST_CLASSES)) {
    const row = made("tr"), cell = made("td"), meter = made("meter", null, { min: 0, max: 1, value });
    meter.setAttribute("aria-label", name);
    cell.append(meter);
    const head = made("th", name);
    head.scope = "row";
    row.append(head, cell, made("td", (100 * value).toFixed(1) + " %"));
    body.append(row);
  }
  return table;
}

async function showInside(predictions, mine) {
  at("seen").replaceChildren(made("p", "Covering the first sample place by place …"));
  at("inside").hidden = false;
  let told;
  try {
    told = await ask("explain", { method: "POST", body: body(true) });
  } catch (error) {
    if (mine === asked) at("seen").replaceChildren(made("p", error.message, { className: "hint" }));
    return;
  }
  if (mine !== asked) return;
  const places = Object.entries(told.inputs).flatMap(([name, part]) => part.places.map((place) => ({ ...place, input: name })));
  places.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const words = places.slice(0, 3).map((one) => one.place).join("; ");
  const picture = made("img", null, { src: "data:image/png;base64," + told.picture, alt: "The sample; places that the answer rests on are marked: " + words });
  const several = Object.entries(told.inputs).filter(([, part]) => part.absent !== null);
  const lines = several.map(([name, part]) => made("p", name + ": " + signed(part.absent) + " without it"));
  at("seen").replaceChildren(picture, ...lines, placeTable(places, told.unit));
}

function signed(value) { return (value > 0 ? "+" : "") + value.toPrecision(2); }

function placeTable(places, unit) {
  const table = made("table"), body = made("tbody");
  table.append(made("caption", "How far the answer falls where a place is covered (" + unit + "); below 0 it rises", { className: "hint" }), body);
  for (const one of places.slice(0, MOST_PLACES)) {
    const row = made("tr"), head = made("th", one.place);
    head.scope = "row";
    row.append(head, made("td", signed(one.value)));
    body.append(row);
  }
  return table;
}

async function showNear(mine) {
  let told;
  try {
    const form = body(true);
    form.delete("model");
    told = await ask("neighbours", { method: "POST", body: form });
  } catch { return; }  // no index, or one of another kind of data
  if (mine !== asked) return;
  at("neighbours").replaceChildren(...told.neighbours.map((one) => made("li", one.id + " (similarity " + one.similarity.toFixed(3) + ")")));
  at("near").hidden = false;
}

async function example() {
  clear();
  try {
    const told = await ask("example?model=" + encodeURIComponent(at("model").value));
    if (!fields.some((field) => told.inputs[field.name])) return say("There is no made example for this model: hand in a file.");
    for (const field of fields) fill(field, told.inputs[field.name]);
    say("A made example is filled in: it has nothing to do with the data that the model knows.");
  } catch (error) { refuse(error); }
}

function fill(field, told) {
  if (!told) return;
  if (told.base64 !== undefined) {
    const bytes = Uint8Array.from(atob(told.base64), (letter) => letter.charCodeAt(0));
    take(field, [new File([bytes], told.name, { type: told.type })]);
    if (field.text) field.text.value = "";
  } else if (field.text) {
    if (field.list) take(field, []);
    field.text.value = told.text;
  }
}

at("modality").addEventListener("change", listModels);
at("model").addEventListener("change", showInputs);
at("form").addEventListener("submit", predict);
at("example").addEventListener("click", example);
at("token").addEventListener("change", load);
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
load();
