// The labeller: what people see and press, in a page of its own (page.js) or in a notebook's cell
// (widget.js). No library and no build step; everything that people wrote is put in as text
// (`textContent`), never as HTML.

const KEYS = "123456789abcdefghijklmnopqrstuvwxyz";
const SVG = "http://www.w3.org/2000/svg";
// Smaller images are enlarged, by whole numbers, and not blurred.
const SMALL = 256;
const RETRY_MS = 1500;
const POLL_MS = 1500;

// A request takes longer than that only where something is wrong, or busy.
const SLOW_MS = 5000;

class Refused extends Error {}

function element(name, content, attributes = {}) {
  const result = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) result.setAttribute(key, value);
  result.append(...(Array.isArray(content) ? content : [content]).filter((each) => each !== null && each !== ""));
  return result;
}

function shape(name, attributes, text) {
  const result = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) result.setAttribute(key, value);
  if (text !== undefined) result.textContent = text;
  return result;
}

const percent = (share) => `${(100 * share).toFixed(share > 0.995 || share < 0.005 ? 1 : 0)} %`;

// Bring the labeller in `root` (a document, or a shadow root) to life; what is returned ends it.
//
// `connection` leads to the Python side:
//   ask(name, body): a promise of { status, content }, see actions.py; it fails where nobody answers
//   picture(index): the address of an item's image, or a promise of one; shown(address), where that
//     is of use, says that it is loaded
//   name(): how the person was called the last time here, or null; remember(name) keeps that
//   silence: what to say while there is no answer
export function startLabeller(root, connection) {

const at = (id) => root.getElementById(id);
let kind = "image";
let classes = [];
let queue = [];       // what is to be labelled: queue[0] is shown
let waiting = [];     // what was answered and is not saved yet, in order
let isSending = false;
let isOver = false;
let name = "";         // under which items are in hand
let choosing = null;  // the item of the open dialog
const pictures = new Map();  // by index, fetched ahead

// --- the other side

async function request(name, body = {}) {
  const { status, content } = await connection.ask(name, body);
  if (status === 200) return content;
  const why = (content && content.error) || `The answer is ${status}.`;
  throw status === 503 ? new Error(why) : new Refused(why);
}

const who = () => at("who").value.trim();

// Everything that changes something goes through here, one after the other and until it is saved.
function send(path, body, then) {
  waiting.push({ path, body: { annotator: who(), ...body }, then });
  sendAll();
}

function unsaved() {
  const number = waiting.filter((each) => each.path !== "begin").length;
  return number ? ` ${number} ${number === 1 ? "answer is" : "answers are"} not saved yet; this page keeps trying.` : "";
}

async function sendAll() {
  if (isSending) return;
  isSending = true;
  while (waiting.length) {
    if (isOver) return;
    const next = waiting[0];
    const silence = setTimeout(() => alarm(connection.silence + unsaved()), SLOW_MS);
    try {
      const reply = await request(next.path, next.body);
      waiting.shift();
      alarm("");
      merge(reply, next.then === undefined ? null : next.then(reply));
    } catch (error) {
      if (error instanceof Refused) {
        waiting.shift();
        say(error.message);
        notice(error.message);
        if (next.path !== "begin" && !waiting.length) waiting.push({ path: "begin", body: { annotator: who() } });
      } else {
        alarm(error.message + unsaved());
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    } finally { clearTimeout(silence); }
  }
  isSending = false;
}

// Take over what the server says is in hand, without what was answered meanwhile.
function merge(reply, first) {
  const gone = new Set(waiting.map((each) => each.body.index));
  const items = reply.items.filter((item) => !gone.has(item.index));
  const shown = queue.length ? queue[0].index : null;
  const front = first ?? shown;
  items.sort((a, b) => (b.index === front) - (a.index === front));
  queue = items;
  progress(reply.progress);
  if (reply.classes.length !== classes.length) setClasses(reply.classes);
  fetchAhead();
  if (!queue.length || queue[0].index !== shown) show();
}

// --- what is seen

function alarm(text) {
  const place = at("alarm");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

let noticeTimer = 0;
function notice(text) {
  clearTimeout(noticeTimer);
  alarm(text);
  noticeTimer = setTimeout(() => { if (at("alarm").textContent === text) alarm(""); }, 5000);
}

function say(text) { at("live").textContent = text; }

function load(image, index) {
  Promise.resolve(connection.picture(index))
    .then(async (address) => {
      if (connection.shown) image.loading = "eager";  // later, it would not be there any more
      image.src = address;
      await image.decode().catch(() => {});
      connection.shown?.(address);
    })
    .catch(() => image.dispatchEvent(new Event("error")));
  image.addEventListener("error", () => { image.dataset.failed = "yes"; });
}

function picture(item) {
  let image = pictures.get(item.index);
  if (!image) {
    image = new Image();
    image.alt = item.text;
    load(image, item.index);
    pictures.set(item.index, image);
  }
  return image;
}

function fetchAhead() {
  if (kind !== "image") return;
  const keep = new Set(queue.map((item) => item.index));
  for (const index of pictures.keys()) if (!keep.has(index) && pictures.size > 40) pictures.delete(index);
  queue.forEach(picture);
}

// As large as the place allows; a small one by a whole number, its pixels sharp.
function fit(image, place) {
  const resize = () => {
    const width = image.naturalWidth, height = image.naturalHeight;
    if (!width || !place.clientHeight) return;
    const isSmall = Math.max(width, height) < SMALL;
    image.classList.toggle("small", isSmall);
    const scale = Math.floor(Math.min((place.clientWidth - 8) / width, (place.clientHeight - 8) / height));
    image.style.width = isSmall ? `${Math.max(1, scale) * width}px` : "";
  };
  if (image.complete && image.naturalWidth) resize();
  else image.addEventListener("load", resize, { once: true });
}

function put(place, item) {
  if (kind === "text") {
    place.replaceChildren(element("div", item.text, { class: "words" }));
    place.scrollTop = 0;
    return;
  }
  const image = place.id === "item" ? picture(item) : element("img", "", { alt: item.text });
  if (place.id !== "item") load(image, item.index);
  const failed = () => place.replaceChildren(element("p", `${item.text}: cannot be shown; skip it.`));
  if (image.dataset.failed) return failed();
  image.addEventListener("error", failed, { once: true });
  place.replaceChildren(image);
  fit(image, place);
}

function show() {
  const item = queue[0];
  for (const button of root.querySelectorAll("#classes button, #skip, #unsure")) button.disabled = !item;
  if (!item) {
    const text = waiting.length ? "Saving …" : "Nothing is left for you: every item is labelled, skipped, set aside, or in hand with somebody else.";
    at("item").replaceChildren(element("p", text));
    at("caption").textContent = "";
    return;
  }
  put(at("item"), item);
  at("unsure").disabled = item.drawn;
  at("caption").textContent = (kind === "image" ? item.text : `item ${item.index}`) + (item.drawn ? ", drawn at random to measure the accuracy" : "");
  at("item").dataset.shown = String(item.index);
}

function progress(now) {
  at("bar").max = now.total;
  at("bar").value = now.labelled;
  const more = [];
  if (now.skipped) more.push(`${now.skipped} skipped`);
  if (now.unsure) more.push(`${now.unsure} unsure`);
  at("count").textContent = `${now.labelled} of ${now.total} labelled${more.length ? ` (${more.join(", ")})` : ""}.`;
  at("accuracy").textContent = now.accuracy || (now.can_measure ? "Accuracy: not measured yet; that begins when the model is stable." : "");
  at("measure").hidden = !now.can_measure;
  at("stage").textContent = now.problem ? `Items are random, nothing is learnt: ${now.problem}.`
    : now.stage === "features" ? "Items are random while features are computed."
    : now.fitted === null ? (classes.length < 2 ? "Items are random until there are two classes." : "The first items are being chosen.")
    : `The model has learnt from ${now.fitted}.`;
  at("undo").disabled = !now.can_undo && !waiting.length;
  settled = now.is_settled;
}

let settled = false;
const polling = setInterval(async () => {
  if (settled || isSending || waiting.length || !who() || document.hidden) return;
  try {
    const now = await request("progress", { annotator: who() });
    progress(now);
    if (!at("review-view").hidden && reviewed === null && now.fitted !== null) review();
  } catch { /* the next answer says so */ }
}, POLL_MS);

function classButtons(place, choose) {
  place.replaceChildren(...classes.map((name, number) => {
    const hasKey = number < KEYS.length;
    const key = hasKey ? element("kbd", KEYS[number], { "aria-hidden": "true" }) : null;
    const button = element("button", [key, " ", element("span", name)], { type: "button", ...(hasKey && { "aria-keyshortcuts": KEYS[number] }) });
    button.addEventListener("click", () => choose(number));
    return button;
  }));
}

function setClasses(names) {
  classes = names;
  classButtons(at("classes"), answer);
  classButtons(at("choice-classes"), (number) => decide(number));
}

// --- what people do

function done(path, body, said) {
  const item = queue.shift();
  if (!item) return;
  show();
  fetchAhead();
  send(path, { index: item.index, ...body });
  const next = queue[0];
  say(`${said}. ${next ? `Next: ${next.text.slice(0, 300)}` : ""}`);
}

function flash(number) {
  const button = at("classes").children[number];
  button.classList.add("chosen");
  setTimeout(() => button.classList.remove("chosen"), 150);
}

function answer(number) {
  if (!queue.length) return;
  flash(number);
  done("answer", { label: number }, classes[number]);
}

function undo() {
  send("undo", {}, (reply) => {
    say("Taken back.");
    return reply.items.length ? reply.items[0].index : null;
  });
}

at("skip").addEventListener("click", () => done("skip", {}, "Skipped"));
at("unsure").addEventListener("click", () => done("unsure", {}, "Set aside"));
at("undo").addEventListener("click", undo);
at("measure").addEventListener("click", () => send("measure", {}, () => null));

at("add-class").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("new-class").value.trim();
  if (!name) return;
  at("new-class").value = "";
  at("new-class").blur();
  send("add-class", { name }, () => { say(`Class ${name} added.`); return null; });
});

root.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !at("keys").checked) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select") || at("hello").open) return;
  const number = KEYS.indexOf(event.key);
  if (at("choice").open) {
    if (number >= 0 && number < classes.length) decide(number);
    return;
  }
  if (at("label-view").hidden) return;
  if (number >= 0 && number < classes.length) answer(number);
  else if (event.key === "Backspace") undo();
  else if (event.key === "-") at("skip").click();
  else if (event.key === "?") at("unsure").click();
  else return;
  event.preventDefault();
});

const leaving = (event) => { if (waiting.length) event.preventDefault(); };
window.addEventListener("beforeunload", leaving);
const resizing = new ResizeObserver(() => {
  const image = at("item").querySelector("img");
  if (image) fit(image, at("item"));
});
resizing.observe(at("item"));

// --- the second view

function view(name) {
  const isReview = name === "review";
  at("label-view").hidden = isReview;
  at("review-view").hidden = !isReview;
  at("to-review").toggleAttribute("aria-current", isReview);
  at("to-label").toggleAttribute("aria-current", !isReview);
  if (isReview) review(); else show();
}
at("to-label").addEventListener("click", () => view("label"));
at("to-review").addEventListener("click", () => view("review"));
at("refresh").addEventListener("click", () => review());

let reviewed = null;  // from how many labels the model had learnt that is shown
async function review() {
  try {
    const now = await request("overview");
    reviewed = now.fitted;
    if (reviewed === null) settled = false;
    const lists = [...now.classes.map((each) => each.confident), now.check, now.disagreements, now.unsure, now.skipped];
    const indices = [...new Set(lists.flat().map((each) => each.index))];
    const described = await request("items", { items: indices });
    const texts = new Map(described.items.map((item) => [item.index, item.text]));
    drawCurve(now.curve);
    drawMeasured(now.accuracy);
    drawCounts(now.classes, now.people);
    drawConfident(now.classes, texts);
    drawLists(now, texts);
  } catch (error) { notice(error.message); }
}

const LINES = [
  ["foreseen", "one", "foreseen: of the last 20 answers, those that the model had predicted (it asks what is hard)"],
  ["stable", "two", "stable: predictions that the last labels did not change (cheap, no guarantee)"],
  ["confidence", "three", "confidence: how sure the model is, on average, in its own opinion"],
];

// An empty drawing of shares against a number up to `most`, and where its points are.
function axes(most, unit, words) {
  const width = 600, height = 240, left = 44, bottom = 30, top = 10, right = 12;
  const x = (value) => left + (width - left - right) * value / most;
  const y = (value) => height - bottom - (height - bottom - top) * value;
  const drawing = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    drawing.append(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }));
    drawing.append(shape("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (const share of [0, 0.5, 1]) drawing.append(shape("text", { x: x(share * most), y: height - 12, "text-anchor": share === 1 ? "end" : "middle" }, `${Math.round(share * most)}${share === 1 ? ` ${unit}` : ""}`));
  return { drawing, x, y };
}

const between = ([, lower, upper]) => `between ${percent(lower)} and ${percent(upper)}`;

// For each model that was measured, the interval of its accuracy against the items that measured it.
function drawMeasured(models) {
  if (!models.length) {
    at("measured").replaceChildren(element("p", "Measuring begins when the model is stable, or when you say so."));
    return;
  }
  const most = Math.max(1, ...models.flatMap(({ intervals }) => intervals.map(([number]) => number)));
  const texts = models.map(({ num_labels, intervals }) => `the model of ${num_labels} labels: ${between(intervals.at(-1))}, by ${intervals.at(-1)[0]} items`);
  const { drawing, x, y } = axes(most, "items drawn at random", `The accuracy on all items, in the end of ${texts.join("; ")}`);
  const list = element("ul", []);
  models.forEach(({ intervals }, number) => {
    const style = ["one", "two", "three"][number % 3];
    const place = ([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`;
    const lower = intervals.map(([a, b]) => place([a, b])), upper = intervals.map(([a, , b]) => place([a, b]));
    drawing.append(shape("polygon", { class: `band ${style}`, points: [...lower, ...[...upper].reverse()].join(" ") }));
    for (const edge of [lower, upper]) drawing.append(shape("polyline", { class: `line ${style}`, points: edge.join(" ") }));
    const sample = shape("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    sample.append(shape("line", { class: `line ${style}`, x1: 0, x2: 32, y1: 5, y2: 5 }));
    list.append(element("li", [sample, texts[number]]));
  });
  at("measured").replaceChildren(drawing, list);
}

function drawCurve(curve) {
  const all = LINES.flatMap(([name]) => curve[name]);
  if (all.length < 2) {
    at("curve").replaceChildren(element("p", "It begins when the model has been fitted twice."));
    return;
  }
  const most = Math.max(...all.map(([x]) => x), 1);
  const last = LINES.filter(([name]) => curve[name].length).map(([name]) => `${name} ${percent(curve[name].at(-1)[1])}`).join(", ");
  const { drawing, x, y } = axes(most, "labels", `Against the number of labels, now: ${last}`);
  const legend = element("ul", []);
  for (const [name, style, text] of LINES) {
    drawing.append(shape("polyline", { class: `line ${style}`, points: curve[name].map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }));
    const sample = shape("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    sample.append(shape("line", { class: `line ${style}`, x1: 0, x2: 32, y1: 5, y2: 5 }));
    legend.append(element("li", [sample, text]));
  }
  at("curve").replaceChildren(drawing, legend);
}

function drawCounts(each, people) {
  const most = Math.max(1, ...each.map((one) => one.labelled));
  const rows = each.map((one) => {
    const meter = element("meter", "", { min: 0, max: most, value: one.labelled, "aria-hidden": "true" });
    return element("tr", [element("th", one.name, { scope: "row" }), element("td", String(one.labelled), { class: "number" }), element("td", meter), element("td", String(one.predicted), { class: "number" })]);
  });
  const head = element("thead", element("tr", ["Class", "Labelled", "", "Predicted"].map((text, place) => element("th", text, { scope: "col", class: place % 2 ? "number" : "" }))));
  const parts = [element("table", [head, element("tbody", rows)])];
  if (people.length > 1) parts.push(element("p", people.map((one) => `${one.name}: ${one.labels}`).join(", ")));
  at("counts").replaceChildren(...parts);
}

function thumb(index, texts, caption, said) {
  const text = texts.get(index) ?? `item ${index}`;
  const inside = kind === "image"
    ? element("img", "", { alt: text, loading: "lazy" })
    : element("span", text, { class: "excerpt" });
  if (kind === "image") {
    inside.addEventListener("load", () => inside.classList.toggle("small", inside.naturalWidth < SMALL));
    load(inside, index);
  }
  const button = element("button", [inside, caption], { type: "button", class: kind === "image" ? "thumb" : "thumb long", "data-index": index });
  button.addEventListener("click", () => choose({ index, text }, said));
  return button;
}

function drawConfident(each, texts) {
  const parts = each.filter((one) => one.confident.length).flatMap((one) => [
    element("h3", one.name),
    element("div", one.confident.map((item) => thumb(item.index, texts, percent(item.probability), `Predicted: ${one.name}, ${percent(item.probability)}`)), { class: "thumbs" }),
  ]);
  at("confident").replaceChildren(...(parts.length ? parts : [element("p", "It begins when the model has been fitted.")]));
}

function drawLists(now, texts) {
  const parts = [];
  const add = (title, words, thumbs) => {
    if (thumbs.length) parts.push(element("section", [element("h2", title), element("p", words), element("div", thumbs, { class: "thumbs" })]));
  };
  add("Labels to check", "The model had expected something else before it was told.",
    now.check.map((item) => thumb(item.index, texts, `${classes[item.label]} (${percent(item.probability)})`, `Labelled: ${classes[item.label]}`)));
  const { pairs, same } = now.agreement;
  if (pairs) parts.push(element("section", [element("h2", "Agreement"), element("p", `${same} of ${pairs} second opinions are the same (${percent(same / pairs)}).`)]));
  add("Disagreements", "Click to decide.", now.disagreements.map((item) => {
    const said = item.labels.map(([name, label]) => `${name}: ${classes[label]}`).join(", ");
    return thumb(item.index, texts, said, said);
  }));
  add("Unsure", "Set aside by somebody; click to label.", now.unsure.map((item) => thumb(item.index, texts, "", "Set aside")));
  add("Skipped", "Nobody could label these; click if you can.", now.skipped.map((item) => thumb(item.index, texts, "", "Skipped")));
  at("lists").replaceChildren(...parts);
}

function choose(item, said) {
  choosing = item;
  at("choice").showModal();
  put(at("choice-item"), item);
  at("choice-caption").textContent = said;
}

function decide(number) {
  if (!choosing) return;
  const { index } = choosing;
  choosing = null;
  at("choice").close();
  send("correct", { index, label: number }, () => { say(`${classes[number]}, corrected.`); review(); return null; });
}

at("choice-close").addEventListener("click", () => at("choice").close());
at("choice").addEventListener("close", () => { choosing = null; });

// --- the beginning

function begin() {
  queue = [];
  name = who();
  send("begin", {});
}

at("who").addEventListener("change", () => {
  if (!who()) return;
  connection.remember(who());
  at("who").blur();  // keys are answers again
  queue = [];
  // What was in hand under the name before goes back: others would wait for it.
  if (name) send("rename", { before: name }); else begin();
  name = who();
});

at("hello-form").addEventListener("submit", () => {
  at("who").value = at("hello-name").value;
  connection.remember(who());
  begin();
});

async function start() {
  let setup;
  while (!setup) {
    if (isOver) return;
    const silence = setTimeout(() => alarm(connection.silence), SLOW_MS);
    try { setup = await request("setup"); } catch (error) {
      alarm(error.message);
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    } finally { clearTimeout(silence); }
  }
  alarm("");
  kind = setup.kind;
  setClasses(setup.classes);
  at("who").value = connection.name() ?? setup.name;
  if (who()) begin(); else at("hello").showModal();
}

start();

return () => {
  isOver = true;
  clearInterval(polling);
  resizing.disconnect();
  window.removeEventListener("beforeunload", leaving);
};
}
