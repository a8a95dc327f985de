// A room by its WebSocket: comes back when it is lost, and says where it was.

// Between two tries: a random time in a span that doubles from the first to the second of these.
const FIRST_TRY_MS = 500;
const LAST_TRY_MS = 30000;
// A connection that has held for so long was no failure.
const HELD_MS = 5000;
// What was said and is not heard in this time was said to nobody: the network is gone and has not told.
const ECHO_MS = 10000;
// Goodbyes after which nobody comes back by itself: the session goes on in another tab, or what was said was refused.
const FINAL_CODES = [1003, 1007, 1008, 1009];

class Room {
  // Behind what was heard last.
  at = null;
  failures = 0;
  state = "connecting";
  retryAt = 0;

  // `tell(what, value)` hears "state", "welcome", "message", "presence", "gap", "refused".
  constructor(name, key, tell) {
    Object.assign(this, { name, key, tell });
  }

  connect() {
    clearTimeout(this.timer);
    if (this.socket && this.socket.readyState < WebSocket.CLOSING) return;
    const url = new URL(`/chat/${encodeURIComponent(this.name)}`, location);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("key", this.key);
    if (this.at) url.searchParams.set("from", this.at);
    const socket = new WebSocket(url);
    this.socket = socket;
    this.enter("connecting");
    socket.addEventListener("message", ({ data }) => socket === this.socket && this.hear(JSON.parse(data)));
    socket.addEventListener("close", (event) => socket === this.socket && this.lose(event));
  }

  hear(said) {
    clearTimeout(said.mark === this.waitsFor ? this.echo : undefined);
    if (said.type === "welcome") {
      this.held = setTimeout(() => { this.failures = 0; }, HELD_MS);
      this.at = said.at;
      this.enter("open");
    } else if (said.at) {
      // Nothing is missing that nobody has told of.
      if (said.type !== "gap" && number(said.at) !== number(this.at) + 1) console.error(`${said.at} behind ${this.at}`);
      this.at = said.at;
    }
    this.tell(said.type, said);
  }

  // False if nobody would hear it.
  say(text, mark) {
    if (this.state !== "open" || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify({ text, mark }));
    clearTimeout(this.echo);
    this.waitsFor = mark;
    // What is lost is not told to the one that is lost.
    this.echo = setTimeout(() => this.lose({ code: 1006, reason: "" }), ECHO_MS);
    return true;
  }

  lose({ code, reason }) {
    for (const timer of [this.held, this.echo, this.timer]) clearTimeout(timer);
    const lost = this.socket;
    this.socket = null;
    lost?.close();
    if (FINAL_CODES.includes(code)) {
      this.enter("over", reason || `closed with ${code}`);
      return;
    }
    // A server that goes says when to come back.
    const told = code === 1012 ? /^retry=(\d{1,6})$/.exec(reason) : null;
    const span = Math.min(LAST_TRY_MS, FIRST_TRY_MS * 2 ** this.failures);
    if (!told) this.failures += 1;
    const wait = told ? Number(told[1]) : FIRST_TRY_MS / 2 + Math.random() * span;
    this.retryAt = Date.now() + wait;
    this.timer = setTimeout(() => this.connect(), wait);
    this.enter("away", told ? "" : reason);
  }

  // Without a code it may come back, and is waited for; with 1000 it has left.
  leave(code) {
    for (const timer of [this.held, this.echo, this.timer]) clearTimeout(timer);
    const left = this.socket;
    this.socket = null;
    left?.close(code);
  }

  enter(state, why = "") {
    Object.assign(this, { state, why });
    this.tell("state", state);
  }
}

// Of "EPOCH.NUMBER".
const number = (at) => Number(at.split(".")[1]);
