// What the page keeps: figures for the charts of five minutes, and whole snapshots of five seconds for rates.

// How much time the charts show: the first of these that has room for what is kept.
const WINDOWS_SECONDS = [60, 120, 300];
const WINDOW_SECONDS = WINDOWS_SECONDS.at(-1);
// One a second, and one more for each end.
const SAMPLES_MAX = WINDOW_SECONDS + 2;
const SNAPSHOTS_MAX = 6;
// Between samples that are further apart nothing is drawn: the page was not looked at.
const GAP_SECONDS = 5;

// Figures of one worker, or of all: -1.
const of = (stats, scope) => (scope < 0 ? stats : stats.per_worker[scope]);

class Samples {
  // For each sample the time and, for each scope from -1 on, what the charts draw.
  points = [];
  snapshots = [];

  add(stats) {
    const before = this.snapshots.at(-1);
    // Another process answers: its counters begin anew.
    if (before && stats.uptime_seconds < before.uptime_seconds) [this.points, this.snapshots] = [[], []];
    if (before && stats.uptime_seconds === before.uptime_seconds) return;
    const [last] = this.snapshots.slice(-1);
    const scopes = [-1, ...stats.per_worker.keys()];
    this.points.push({
      time: stats.uptime_seconds,
      at: Date.now(),
      figures: scopes.map((scope) => this.figures(of(stats, scope), last && of(last, scope), stats, last)),
    });
    this.snapshots.push(stats);
    this.snapshots.splice(0, this.snapshots.length - SNAPSHOTS_MAX);
    this.points.splice(0, this.points.length - SAMPLES_MAX);
  }

  figures(now, then, { uptime_seconds }, last) {
    const seconds = last && uptime_seconds - last.uptime_seconds;
    const isGap = !last || seconds > GAP_SECONDS;
    const rate = (name) => (isGap ? NaN : (now[name] - then[name]) / seconds);
    return {
      requests: rate("requests"),
      received: rate("received_bytes"),
      sent: rate("sent_bytes"),
      busy: rate("busy_nanos") / 1e7,
      syscalls: rate("syscalls_total"),
      open: now.open,
      held: now.held_input_bytes + now.held_output_bytes,
    };
  }

  get window() {
    const kept = this.points.length > 0 ? this.points.at(-1).time - this.points[0].time : 0;
    return WINDOWS_SECONDS.find((seconds) => kept <= seconds) ?? WINDOW_SECONDS;
  }

  // How fast a counter has grown in the last seconds, per second. Some are of the whole program only.
  rate(name, scope) {
    const [first, last] = [this.snapshots[0], this.snapshots.at(-1)];
    if (!first || first === last) return NaN;
    if (scope >= 0 && !(name in of(last, scope))) return this.rate(name, -1);
    return (of(last, scope)[name] - of(first, scope)[name]) / (last.uptime_seconds - first.uptime_seconds);
  }
}

// 1234567 as "1,234,567".
const whole = (figure) => figure.toLocaleString("en");

// Three digits and the prefix that fits.
function short(figure, unit = "") {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let [value, step] = [figure, 0];
  while (Math.abs(value) >= 999.5 && step < prefixes.length - 1) [value, step] = [value / 1000, step + 1];
  const digits = Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const space = prefixes[step] || unit ? "\u202f" : "";
  return `${value.toFixed(digits)}${space}${prefixes[step]}${unit}`;
}

const units = {
  count: { total: whole, rate: (rate) => `${short(rate)}/s` },
  bytes: { total: (bytes) => short(bytes, "B"), rate: (rate) => `${short(rate, "B")}/s` },
  nanos: { total: (nanos) => `${short(nanos / 1e9)}\u202fs`, rate: (rate) => `${(rate / 1e7).toFixed(1)}\u202f%` },
  level: { total: whole },
  "level bytes": { total: (bytes) => short(bytes, "B") },
};
