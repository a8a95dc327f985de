// The page of the counters: asks once a second, and shows what came.

const POLL_MS = 1000;
// A program that does not answer is asked less often.
const RETRY_MS = 3000;
const PATIENCE_MS = 5000;

const samples = new Samples();
let scope = -1;
let looked = null;
let isPaused = false;
let timer = 0;
let asking = false;
let silent = null;

const share = (value) => `${value.toFixed(value < 10 ? 1 : 0)}\u202f%`;
const perSecond = (value) => `${short(value)}/s`;
const bytesPerSecond = (value) => `${short(value, "B")}/s`;

const charts = [
  { title: "Requests", about: "Requests answered in a second.", series: ["requests"], format: perSecond },
  { title: "Busy", about: "The share of a second that was spent in turns and not in waiting, by one worker or by all "
    + "together: two busy workers are 200 %.", series: ["busy"], format: share, least: 10 },
  { title: "Open connections", about: "Connections that were open at that moment.", series: ["open"], format: short },
  { title: "Traffic", about: "Bytes of all connections in a second: sent, and dashed, received.",
    series: ["sent", "received"], keys: ["sent", "received"], format: bytesPerSecond },
  { title: "System calls", about: "System calls of all kinds in a second.", series: ["syscalls"], format: perSecond },
  { title: "Memory held", about: "Input that nobody has consumed and output that waits to leave, at that moment.",
    series: ["held"], format: (value) => short(value, "B"), least: 1000 },
].map((what) => new Chart(what, (point) => {
  looked = point;
  showCharts();
}));

const ratio = (name) => (stats) => (stats.requests ? short(stats[name] / stats.requests) : "–");
const known = (text) => (rate) => (Number.isFinite(rate) ? text(rate) : "–");
const rated = (name, text) => () => known(text)(samples.rate(name, scope));
const tiles = [
  ["uptime", "How long the program has been running.", (_, all) => duration(all.uptime_seconds)],
  ["requests", "Requests answered in a second, of the last five.", rated("requests", perSecond)],
  ["busy", "The share of time that is spent in turns. Two busy workers are 200 %.",
    rated("busy_nanos", (rate) => share(rate / 1e7))],
  ["open connections", "Connections that are open now, this page's included.", (stats) => whole(stats.open)],
  ["sent", "Bytes sent in a second.", rated("sent_bytes", bytesPerSecond)],
  ["received", "Bytes received in a second.", rated("received_bytes", bytesPerSecond)],
  ["system calls a request", "System calls since the start, divided by requests. Many connections at once make it less.",
    ratio("syscalls_total")],
  ["memory held", "Input and output that connections hold now.",
    (stats) => short(stats.held_input_bytes + stats.held_output_bytes, "B")],
].map(([name, about, text]) => {
  const figure = make("b", {}, "–");
  byId("tiles").append(make("div", { class: "card tile" }, figure, ...explained(name, about)));
  return { figure, text };
});

// Rows of a group; those that are zero lie folded below it until they are not.
class Group {
  constructor(title) {
    this.isTrouble = title === TROUBLE;
    this.folded = make("details", {}, make("summary"));
    this.card = make("section", { class: "card" }, make("h2", {}, title), this.folded);
    this.rows = [];
    byId("groups").append(this.card);
  }

  add(name, kind, about) {
    const [total, rate] = [make("span"), make("span")];
    const element = make("div", { class: this.isTrouble ? "row wrong" : "row" }, make("span", {}, ...explained(name, about)), total, rate);
    this.folded.append(element);
    this.rows.push({ name, kind, element, total, rate, isFolded: true });
  }

  show(stats, all) {
    for (const row of this.rows) {
      const figure = stats[row.name] ?? all[row.name] ?? 0;
      const unit = units[row.kind];
      row.total.textContent = unit.total(figure);
      const rate = unit.rate ? samples.rate(row.name, scope) : NaN;
      row.rate.textContent = unit.rate ? (rate > 0 ? unit.rate(rate) : "") : "now";
      // A level that was not zero once stays, or it would jump about.
      const isLevel = !unit.rate;
      const isFolded = figure === 0 && !(isLevel && !row.isFolded);
      if (isFolded !== row.isFolded) this.move(row, isFolded);
    }
    const count = this.rows.filter((row) => row.isFolded).length;
    this.folded.hidden = count === 0;
    this.folded.firstChild.textContent = count === this.rows.length ? `All ${count} are zero` : `${count} at zero`;
  }

  // Keeps the order of the rows on both sides of the fold.
  move(row, isFolded) {
    row.isFolded = isFolded;
    const next = this.rows.slice(this.rows.indexOf(row) + 1).find((other) => other.isFolded === isFolded);
    if (isFolded) this.folded.insertBefore(row.element, next?.element ?? null);
    else this.card.insertBefore(row.element, next?.element ?? this.folded);
  }
}

const groups = explanations.map(([title, counters]) => {
  const group = new Group(title);
  for (const counter of counters) group.add(...counter);
  return group;
});

// Counters that the table above does not know.
let others = null;
function addOthers(stats) {
  const names = explanations.flatMap(([, counters]) => counters.map(([name]) => name));
  const unknown = Object.keys(stats.per_worker[0] ?? {}).filter((name) => !names.includes(name));
  others = [];
  if (unknown.length === 0) return;
  const group = new Group("Others");
  for (const name of unknown) group.add(name, "count", "This page does not know what it counts.");
  groups.push(group);
  others = unknown;
}

// Of several workers, each in a line.
const table = make("tbody");
const workers = make("section", { class: "card wide", hidden: true }, make("h2", {}, "Workers"),
  make("table", {}, make("thead", {}, make("tr", {},
    ...["worker", "open", "requests", "busy"].map((name) => make("th", { scope: "col" }, name)))), table));
byId("groups").prepend(workers);

function showWorkers({ per_worker }) {
  workers.hidden = per_worker.length < 2;
  while (table.children.length > per_worker.length) {
    table.lastChild.remove();
    byId("scope").lastChild.remove();
  }
  while (table.children.length < per_worker.length) {
    const index = table.children.length;
    const load = make("meter", { min: 0, max: 100, value: 0, "aria-hidden": "true" });
    table.append(make("tr", {}, make("td", {}, String(index)), make("td"), make("td"), make("td", {}, make("span"), " ", load)));
    byId("scope").append(make("option", { value: index }, `worker ${index}`));
  }
  per_worker.forEach((stats, index) => {
    const [, open, requests, busy] = table.children[index].children;
    const load = samples.rate("busy_nanos", index) / 1e7;
    open.textContent = whole(stats.open);
    requests.textContent = known(perSecond)(samples.rate("requests", index));
    busy.firstChild.textContent = known(share)(load);
    busy.lastChild.value = Number.isFinite(load) ? load : 0;
  });
}

function showCharts() {
  for (const chart of charts) chart.show(samples, scope, looked);
}

function show() {
  const all = samples.snapshots.at(-1);
  if (!all) return;
  if (!others) addOthers(all);
  // Another process may have fewer workers.
  if (scope >= all.per_worker.length) [scope, byId("scope").value] = [-1, "-1"];
  showWorkers(all);
  const stats = of(all, scope);
  for (const { figure, text } of tiles) figure.textContent = text(stats, all);
  for (const group of groups) group.show(stats, all);
  showCharts();
}

function showState() {
  const state = byId("state");
  const text = silent ? `No answer since ${silent.toLocaleTimeString()} (${silent.reason}). Asking on.`
    : isPaused ? "Paused." : "Live, once a second.";
  state.className = silent ? "bad" : "";
  // Said once, not with each sample.
  if (state.textContent !== text) state.textContent = text;
}

async function ask() {
  clearTimeout(timer);
  if (asking || isPaused || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch("/stats.json", {
      cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    samples.add(await answer.json());
    silent = null;
    show();
  } catch (error) {
    silent ??= Object.assign(new Date(), { reason: error.message });
  }
  asking = false;
  showState();
  if (!isPaused) timer = setTimeout(ask, silent ? RETRY_MS : POLL_MS);
}

byId("charts").append(...charts.map((chart) => chart.figure));
byId("scope").addEventListener("change", (event) => {
  scope = Number(event.target.value);
  show();
});
byId("pause").addEventListener("click", (event) => {
  isPaused = !isPaused;
  event.target.textContent = isPaused ? "Go on" : "Pause";
  event.target.setAttribute("aria-pressed", isPaused);
  showState();
  ask();
});
document.addEventListener("visibilitychange", ask);
showCharts();
ask();
