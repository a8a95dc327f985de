// The page of a room: what was said, who is here, and what this tab says.

const ROOM = "lobby";
const TEXT_CHARS_MAX = 1000;
// Lines that are kept; those above are gone from the page.
const LINES_MAX = 300;
const NAMES_MAX = 100;
const COMINGS_MAX = 3;
// This close to its end the list follows what comes.
const NEAR_PX = 60;

const said = byId("said");
const words = byId("words");
let room = null;
// Up to here messages are old: they are not read out.
let head = null;
// The end of the list is in sight, and stays there.
let isFollowing = true;
let name = "";
let here = { count: 0, names: new Set() };
// What this tab has said and has not heard: lines by their marks.
const pending = new Map();
let marks = 0;
const markPrefix = Math.random().toString(36).slice(2, 10);

// Of this tab: whoever has it is this guest, and gets its place back.
function key() {
  const fresh = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    const known = sessionStorage.getItem("key") ?? fresh;
    sessionStorage.setItem("key", known);
    return known;
  } catch {
    // A browser that keeps nothing makes another guest of each page.
    return fresh;
  }
}

const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;

function add(line) {
  said.append(line);
  while (said.children.length > LINES_MAX) said.firstChild.remove();
  if (isFollowing) toNewest();
  else byId("newest").hidden = false;
}

function toNewest() {
  isFollowing = true;
  said.scrollTop = said.scrollHeight;
  byId("newest").hidden = true;
}

const note = (text, kind = "") => add(make("li", { class: `note ${kind}` }, make("bdi", {}, text)));

// Those who have come and left since the last message are one line, which names the last of them.
let comings = { line: null, all: [] };
function noteComing(text) {
  if (comings.line === null || comings.line !== said.lastChild) {
    note(text);
    comings = { line: said.lastChild, all: [] };
  }
  comings.all.push(text);
  const { line, all } = comings;
  line.dataset.count = all.length;
  const named = all.slice(all.length > COMINGS_MAX ? 1 - COMINGS_MAX : 0);
  const others = all.length - named.length;
  line.firstChild.textContent = [...(others > 0 ? [`${others} have come or left`] : []), ...named].join(", ");
  if (isFollowing) toNewest();
}

function line({ name: who, text, time }, kind) {
  return make("li", { class: `line ${kind}` },
    make("p", { class: "by" }, make("bdi", {}, who), " ", make("time", { datetime: new Date(time).toISOString() }, clock(time))),
    make("p", { class: "text", dir: "auto" }, text));
}

function showHere() {
  byId("count").textContent = here.count;
  const names = [...here.names].sort().slice(0, NAMES_MAX);
  const rest = here.count - names.length;
  byId("names").replaceChildren(
    ...names.map((each) => make("li", { class: each === name ? "self" : "" }, make("bdi", {}, each), each === name ? " (you)" : "")),
    ...(rest > 0 ? [make("li", { class: "quiet" }, `and ${rest} more`)] : []));
}

function hasHere({ count, names }) {
  here = { count, names: new Set(names) };
  showHere();
}

// Whether what comes now is new; then it is read out.
function caughtUp() {
  if (head === null || number(room.at) < number(head)) return;
  head = null;
  said.setAttribute("aria-live", "polite");
  // What was said before the connection broke has come by now, or it never will.
  for (const [mark, { line, socket }] of pending) if (socket !== room.socket) fail(mark, line, "not sent, as the connection was lost");
}

function fail(mark, failed, why) {
  const { text } = pending.get(mark);
  pending.delete(mark);
  failed.classList.replace("pending", "failed");
  const again = () => {
    failed.remove();
    speak(text);
  };
  failed.append(make("p", { class: "why" }, why, " ", make("button", { type: "button", click: again }, "Send again")));
}

const heard = {
  state: showState,
  welcome(welcome) {
    name = welcome.name;
    byId("log-in").hidden = !welcome.is_guest;
    head = welcome.head;
    said.setAttribute("aria-live", "off");
    hasHere(welcome.here);
    if (welcome.is_anew) {
      // The messages that follow are all that there is.
      for (const old of [...said.children]) if (!old.matches(".pending, .failed")) old.remove();
    }
    if (welcome.missing > 0) note(`${count(welcome.missing, "message")} missing here: you were away for longer than this room remembers`, "gap");
    showState();
    caughtUp();
  },
  message(message) {
    const own = pending.get(message.mark);
    own?.line.remove();
    pending.delete(message.mark);
    add(line(message, own || message.name === name ? "own" : ""));
    if (own) toNewest();
    caughtUp();
  },
  presence({ name: who, is_here, count }) {
    here.names[is_here ? "add" : "delete"](who);
    here.count = count;
    showHere();
    noteComing(`${who} has ${is_here ? "come" : "left"}`);
    caughtUp();
  },
  gap({ missing, here }) {
    hasHere(here);
    note(`${count(missing, "message")} missing here: this page was too slow`, "gap");
    caughtUp();
  },
  refused({ why, mark, wait }) {
    const own = pending.get(mark);
    if (own) fail(mark, own.line, why);
    say(wait ? `${why}; try again in ${Math.ceil(wait / 1000)} s` : why);
  },
};

// A word about what was typed.
function say(text) {
  byId("hint").textContent = text;
  byId("hint").classList.toggle("bad", text !== "");
}

function showState() {
  clearTimeout(showState.timer);
  const state = byId("state");
  const { state: how, why } = room;
  const seconds = Math.max(0, Math.ceil((room.retryAt - Date.now()) / 1000));
  const text = {
    connecting: room.at ? "Coming back …" : "Connecting …",
    open: `You are ${name}.`,
    away: `Away${why ? ` (${why})` : ""}; back ${seconds > 0 ? `in ${seconds} s` : "now"} …`,
    over: `Closed: ${why}.`,
  }[how];
  state.dataset.state = how;
  state.className = how === "open" ? "" : "bad";
  if (state.textContent !== text) state.textContent = text;
  // Seconds that are counted down are not for being read out.
  state.setAttribute("aria-live", how === "away" ? "off" : "polite");
  byId("again").hidden = how !== "away" && how !== "over";
  if (how === "away") showState.timer = setTimeout(showState, 1000);
}

function speak(text) {
  const mark = `${markPrefix}-${++marks}`;
  if (!room.say(text, mark)) {
    say("Not connected: it was not sent.");
    return false;
  }
  const own = line({ name, text, time: Date.now() }, "own pending");
  pending.set(mark, { line: own, text, socket: room.socket });
  add(own);
  toNewest();
  return true;
}

function enterRoom(to) {
  room?.leave(1000);
  [head, here] = [null, { count: 0, names: new Set() }];
  pending.clear();
  said.replaceChildren();
  byId("room").value = to;
  document.title = `${to} – mini-program`;
  room = new Room(to, key(), (what, value) => heard[what]?.(value));
  room.connect();
}

const named = () => new URLSearchParams(location.search).get("room") || ROOM;

byId("speak").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = words.value.trim();
  const long = [...text].length - TEXT_CHARS_MAX;
  if (long > 0) say(`${count(long, "character")} too many: a message has ${TEXT_CHARS_MAX}.`);
  else if (text !== "" && speak(text)) {
    words.value = "";
    say("");
  }
  words.focus();
});
words.addEventListener("keydown", (event) => {
  // While letters are composed, Enter is the editor's.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("speak").requestSubmit();
});
words.addEventListener("input", () => say(""));
byId("rooms").addEventListener("submit", (event) => {
  event.preventDefault();
  const to = byId("room").value.trim();
  if (!/^[\p{Alphabetic}\p{N}_-]{1,32}$/u.test(to)) {
    say("A room has 1 to 32 letters, digits, hyphens and underscores.");
    return;
  }
  history.pushState(null, "", to === ROOM ? "/chat" : `/chat?room=${encodeURIComponent(to)}`);
  enterRoom(to);
});
addEventListener("popstate", () => enterRoom(named()));
said.addEventListener("scroll", () => {
  isFollowing = said.scrollHeight - said.scrollTop - said.clientHeight < NEAR_PX;
  if (isFollowing) byId("newest").hidden = true;
});
// Above a keyboard, for one.
new ResizeObserver(() => isFollowing && toNewest()).observe(said);
byId("newest").addEventListener("click", toNewest);
byId("again").addEventListener("click", () => room.connect());
addEventListener("online", () => room.state === "away" && room.connect());
// Where the page is kept and shown again it comes back.
addEventListener("pagehide", () => room.leave());
addEventListener("pageshow", (event) => event.persisted && room.connect());
byId("here").open = matchMedia("(min-width: 56rem)").matches;
enterRoom(named());
