// A chart of what was kept: one line or two over some minutes, drawn anew with each sample.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [600, 100];

function draw(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// The next of 1, 2, 5, 10, 20, … that is not below it.
function nice(most) {
  if (!(most > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= most * 0.999);
}

class Chart {
  // `series` are names of figures, `format` writes one of them, `looked` is called with a point or null.
  constructor({ title, about, series, keys, format, least = 0 }, looked) {
    Object.assign(this, { title, series, format, least, looked });
    this.lines = series.map((_, index) => draw("path", { class: ["first", "second"][index] }));
    this.area = draw("path", { class: "area" });
    this.cursor = draw("line", { y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg = draw("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0", "aria-label": title,
    });
    this.svg.append(this.area, ...this.lines, this.cursor);
    [this.most, this.begin] = [make("span"), make("span")];
    this.output = make("output");
    const names = keys?.map((key, index) => make("span", { class: `key ${["", "second"][index]}` }, `${key} `)) ?? [];
    this.figure = make("figure", { class: "card chart" },
      make("figcaption", {}, make("span", {}, ...explained(title, about), " ", ...names), this.output),
      make("div", { class: "axis" }, this.most),
      this.svg,
      make("div", { class: "axis" }, this.begin, make("span", {}, "now")));
    this.svg.addEventListener("pointermove", (event) => {
      const { left, width } = this.svg.getBoundingClientRect();
      this.looked(this.nearest((event.clientX - left) / width));
    });
    this.svg.addEventListener("pointerleave", () => this.looked(null));
    this.svg.addEventListener("blur", () => this.looked(null));
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
    this.points = [];
    this.window = WINDOW_SECONDS;
  }

  x(point) {
    return WIDTH * (1 + (point.time - this.points.at(-1).time) / this.window);
  }

  nearest(share) {
    const far = (point) => Math.abs(this.x(point) - share * WIDTH);
    return this.points.reduce((best, point) => (best && far(best) <= far(point) ? best : point), null);
  }

  pressed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.looked(null);
    if (!step || this.points.length === 0) return;
    event.preventDefault();
    const at = this.points.indexOf(this.point ?? this.points.at(-1)) + step;
    this.looked(this.points[Math.max(0, Math.min(at, this.points.length - 1))]);
  }

  // Draws the points of a scope; `point` is the one that is looked at, or null.
  show({ points, window }, scope, point) {
    this.points = points.filter((each) => each.time >= points.at(-1).time - window);
    this.window = window;
    this.point = this.points.includes(point) ? point : null;
    const figures = (each) => each.figures[scope + 1] ?? {};
    const all = this.points.flatMap((each) => this.series.map((name) => figures(each)[name])).filter(Number.isFinite);
    const top = nice(Math.max(this.least, ...all));
    const y = (value) => (HEIGHT - 2) * (1 - value / top) + 1;
    this.series.forEach((name, index) => {
      let [path, area, run] = ["", "", []];
      // A line without a gap, and the area below it.
      const finish = () => {
        if (run.length > 0) {
          path += `M${run.join("L")}`;
          area += `M${run[0].split(" ")[0]} ${HEIGHT}L${run.join("L")}V${HEIGHT}Z`;
        }
        run = [];
      };
      let before = null;
      for (const each of this.points) {
        const value = figures(each)[name];
        if (!Number.isFinite(value) || before && each.time - before.time > GAP_SECONDS) finish();
        if (Number.isFinite(value)) run.push(`${this.x(each).toFixed(1)} ${y(value).toFixed(1)}`);
        before = each;
      }
      finish();
      this.lines[index].setAttribute("d", path);
      if (index === 0) this.area.setAttribute("d", area);
    });
    const shown = this.point ?? this.points.at(-1);
    const texts = shown ? this.series.map((name) => figures(shown)[name]) : [];
    const text = texts.map((value) => (Number.isFinite(value) ? this.format(value) : "–")).join(" · ");
    const when = this.point ? `${new Date(this.point.at).toLocaleTimeString()}: ` : "";
    this.output.textContent = when + text;
    this.begin.textContent = `${duration(window).replace(/ 0 s$/, "")} ago`;
    this.most.textContent = this.format(top);
    this.svg.setAttribute("aria-label", `${this.title}: ${when}${text}`);
    this.cursor.setAttribute("visibility", this.point ? "visible" : "hidden");
    if (this.point) for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(this.point));
  }
}
