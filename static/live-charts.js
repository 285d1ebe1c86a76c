// Chart.js, told how this house draws. A series is known by its colour, its dashes and its points alike.

import { count, duration, durationTick, percent, rate, time, timeWithSeconds } from "./live-format.js";
import { errorRate, PRIORITIES, STEP_S, TRAILING_S, WINDOW_S } from "./live-store.js";

const SMOOTH_S = 30;
const POINT_EVERY_S = 60;
const NEAR_PX = 16;
const COLOURS = 8;
const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [5, 2, 1, 2, 1, 2], [1, 3], [14, 3, 3, 3]];
const POINTS = ["circle", "rect", "triangle", "rectRot", "crossRot", "star", "cross", "dash"];
// The same shapes for the legend, in a box from -4 to 4.
const SHAPES = {
  circle: "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  rect: "M-3-3h6v6h-6z",
  triangle: "M0-3.5l3.5 6h-7z",
  rectRot: "M0-4l4 4-4 4-4-4z",
  crossRot: "M-3-3l6 6M3-3l-6 6",
  star: "M-3.5 0h7M0-3.5v7M-2.5-2.5l5 5M2.5-2.5l-5 5",
  cross: "M-4 0h8M0-4v8",
  dash: "M0 0h5",
};

export const ALL = Symbol("all model names");
export const nameOf = (name) => (name === ALL ? gettext("All model names") : name);

const colours = new Map();
const token = (name) => {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  }
  return colours.get(name);
};
/** The theme has changed: read its colours again. */
export const forgetColours = () => colours.clear();

/** How the nth series looks; `ALL` is drawn in ink. */
export const styleOf = (place) => {
  if (place === ALL) return { property: "--ink", dash: [], point: "circle", offset_s: 0 };
  const shift = Math.floor(place / COLOURS); // the ninth has the first's colour, but other dashes
  return {
    property: `--series-${(place % COLOURS) + 1}`,
    dash: DASHES[(place + shift) % DASHES.length],
    point: POINTS[(place + shift) % POINTS.length],
    offset_s: ((place * 3) % (POINT_EVERY_S / STEP_S)) * STEP_S,
  };
};

const SVG = "http://www.w3.org/2000/svg";
const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

/** A piece of the line as it is drawn, with one of its points. */
export const sampleOf = (style) => {
  const drawn = svg(
    "svg",
    { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true", focusable: "false", fill: "none", stroke: "currentColor" },
    svg("path", { d: "M0 5h28", "stroke-width": 2, "stroke-dasharray": style.dash.join(" ") }),
    svg("path", { d: SHAPES[style.point], transform: "translate(14 5)", fill: "currentColor", "stroke-width": 1.5 }),
  );
  drawn.style.color = `var(${style.property})`;
  return drawn;
};

// What each chart draws: the value of one series at one second.
const mean = (name) => (series, second) => series.sum(name, second, SMOOTH_S) / SMOOTH_S;
const tokens = (series, second) => mean("input_tokens")(series, second) + mean("output_tokens")(series, second);
const spend = (series, second) => series.sum("cost_nanos", second, TRAILING_S);
const percentile = (name) => (series, second) => series.at(second, name);

/** Which of the counts of calls under way each line is: a colour a priority, queued ones dashed. */
const underWayLines = () => {
  const names = [gettext("Urgent"), gettext("Normal"), gettext("Batch")];
  const point = ["triangle", "circle", "rect"];
  return ["in_flight", "queued"].flatMap((what, half) => names.map((name, at) => ({
    label: what === "queued" ? interpolate(gettext("%s, queued"), [name]) : name,
    style: { property: `--series-${at + 1}`, dash: half ? [3, 3] : [], point: point[at], offset_s: at * 15 + half * 5 },
    value: (underWay, second) => underWay.most(second, half * PRIORITIES.length + at, STEP_S),
  })));
};

/** What the charts are called in the page, and how each is drawn; `money` formats nano-units.
 *  `covers`: the seconds of which a point tells, its own the last. */
export const kindsWith = (money) => ({
  calls: { value: mean("calls"), format: rate, atLeast: 1, covers: SMOOTH_S },
  under_way: { lines: underWayLines(), format: count, atLeast: 4, covers: STEP_S },
  latency: { choices: "latency", format: duration, tick: durationTick, atLeast: 100_000, covers: TRAILING_S },
  first_token: { choices: "first_token", format: duration, tick: durationTick, atLeast: 100_000, covers: TRAILING_S },
  errors: { value: errorRate, format: percent, atLeast: 0.05, covers: TRAILING_S },
  spend: { value: spend, format: money, atLeast: 1000, covers: TRAILING_S },
  tokens: { value: tokens, format: rate, atLeast: 10, covers: SMOOTH_S },
});

const PERCENTS = ["p50", "p95", "p99"];

/** Show what is known before the first figure, so that it takes its place at once. */
export const prepare = (section, { lines, choices }) => {
  if (lines) showLegend(section, lines);
  if (choices) section.querySelector("select").replaceChildren(eachName());
};

const eachName = () => group(
  gettext("Each model name"),
  PERCENTS.map((name) => [name, interpolate(gettext("%s of each model name"), [name])]),
);

const showLegend = (section, lines) => {
  const legend = section.querySelector(".chart-legend");
  legend.hidden = !lines.length;
  legend.replaceChildren(...lines.map(({ label, style }) => {
    const item = document.createElement("span");
    item.className = "legend-item";
    item.append(sampleOf(style), label);
    return item;
  }));
};

export class LiveChart {
  box;
  shown = { first: 0, last: 0 };
  section;
  #kind;
  #chart;
  #select;
  #choice = "p95";
  #offered = "";
  #legendShown = "";
  #tableAt = 0;

  constructor(section, kind, redraw) {
    this.section = section;
    this.#kind = kind;
    this.box = section.querySelector(".chart-canvas");
    this.#chart = new Chart(section.querySelector("canvas"), configuration(kind));
    this.#select = section.querySelector("select");
    this.#select?.addEventListener("change", () => {
      this.#choice = this.#select.value;
      this.#tableAt = 0;
      redraw();
    });
    section.querySelector("details").addEventListener("toggle", () => {
      this.#tableAt = 0;
      redraw();
    });
  }

  /** Draw up to the second `now`. `shown` is a list of [name, place, series]. */
  draw(store, now, shown) {
    if (this.#select) this.#offer(shown.map(([name]) => name).filter((name) => name !== ALL));
    const lines = this.#lines(store, shown);
    const { scales } = this.#chart.options;
    scales.x.max = now;
    scales.x.min = now - store.span(now);
    this.shown = { first: Math.max(gridFrom(now), Math.ceil(scales.x.min / STEP_S) * STEP_S), last: now };
    this.#chart.data.datasets = lines.map((line, at) => this.#dataset(line, this.#chart.data.datasets[at], now));
    this.#chart.update("none");
    this.box.parentElement.removeAttribute("data-loading");
    this.#drawTable(now, lines);
  }

  get covers() {
    return this.#kind.covers;
  }

  /** The drawn second that is nearest to a place in the box, in pixels; null outside of the drawing. */
  secondAt(x) {
    const { chartArea, scales } = this.#chart;
    if (!chartArea || x < chartArea.left - 4 || x > chartArea.right + 4) return null;
    return this.#nearest(scales.x.getValueForPixel(x));
  }

  #nearest(second) {
    const { first, last } = this.shown;
    const grid = Math.round(second / STEP_S) * STEP_S;
    return Math.abs(second - last) < Math.abs(second - grid) || grid > last ? last : Math.max(first, grid);
  }

  /** Show what every line was at that second; null: nothing is pointed at. */
  point(second) {
    const chart = this.#chart;
    const at = second === null ? null : this.#nearest(second);
    const place = at === null || second < this.shown.first ? -1 : this.#placeOf(at);
    const active = place < 0 ? [] : chart.data.datasets.map((_, datasetIndex) => ({ datasetIndex, index: place }));
    chart.pointedAt = active.length ? at : null;
    chart.setActiveElements(active);
    chart.tooltip.setActiveElements(active, { x: active.length ? chart.scales.x.getPixelForValue(at) : 0, y: 0 });
    chart.draw();
    this.#announce(at);
  }

  #placeOf(second) {
    const data = this.#chart.data.datasets[0]?.data ?? [];
    const place = second === this.shown.last ? data.length - 1 : Math.round((second - data[0]?.x) / STEP_S);
    return place < data.length ? place : -1;
  }

  #announce(second) {
    const ago = second === null ? 0 : this.shown.last - second;
    this.box.setAttribute("aria-valuenow", WINDOW_S - Math.min(WINDOW_S, ago));
    if (second === null) this.box.setAttribute("aria-valuetext", gettext("No second is chosen"));
  }

  /** Say it in words, for who moves by keyboard. */
  tell(second) {
    const place = this.#placeOf(this.#nearest(second));
    const said = this.#chart.data.datasets
      .map(({ label, data }) => [label, data[place]?.y ?? NaN])
      .filter(([, value]) => !Number.isNaN(value))
      .map(([label, value]) => `${label} ${this.#kind.format(value)}`);
    this.box.setAttribute("aria-valuetext", [timeWithSeconds(second), ...said].join(", "));
  }

  /** The model name whose line is meant: the nearest to `y` in pixels, or the only one; null: all of them. */
  routeAt(second, y) {
    const { data: { datasets }, scales } = this.#chart;
    const place = this.#placeOf(this.#nearest(second));
    const near = datasets
      .map(({ route, data }) => [route, Math.abs(scales.y.getPixelForValue(data[place]?.y ?? NaN) - y)])
      .filter(([, away]) => away <= NEAR_PX)
      .sort((one, other) => one[1] - other[1]);
    const routes = new Set(datasets.map(({ route }) => route));
    return near[0]?.[0] ?? (routes.size === 1 ? [...routes][0] : null);
  }

  restyle() {
    colour(this.#chart.options);
  }

  #lines(store, shown) {
    if (this.#kind.lines) {
      this.#showLegend(this.#kind.lines);
      return this.#kind.lines.map((line) => ({ ...line, series: store.underWay, route: null }));
    }
    const one = this.#choice.startsWith("of:") ? this.#choice.slice(3) : null;
    if (!this.#select || one === null) {
      this.#showLegend([]);
      const value = this.#kind.value ?? percentile(`${this.#kind.choices}_${this.#choice}`);
      return shown.map(([name, place, series]) => ({
        label: nameOf(name), route: name === ALL ? null : name, style: styleOf(place), series, value,
      }));
    }
    const series = one === "" ? store.total : (store.routes.get(one) ?? store.total);
    const lines = PERCENTS.map((name, at) => ({
      label: name, route: one || null, style: styleOf(at), series, value: percentile(`${this.#kind.choices}_${name}`),
    }));
    this.#showLegend(lines);
    return lines;
  }

  #dataset({ label, route, style, series, value }, before, last) {
    return Object.assign(before ?? {}, {
      label,
      route,
      data: points(series, value, last),
      borderColor: token(style.property),
      backgroundColor: token(style.property),
      borderDash: style.dash,
      pointStyle: style.point,
      pointRadius: 0, // see `marks`
      marksOffset_s: style.offset_s,
    });
  }

  #offer(names) {
    if (names.join("\n") === this.#offered) return;
    this.#offered = names.join("\n");
    const all = [
      ["of:", gettext("p50, p95, p99 of all calls")],
      ...names.map((name) => [`of:${name}`, interpolate(gettext("p50, p95, p99 of %s"), [name])]),
    ];
    this.#select.replaceChildren(eachName(), group(gettext("One, in detail"), all));
    this.#select.value = this.#choice;
    if (this.#select.selectedIndex < 0) this.#select.value = this.#choice = "p95";
  }

  #showLegend(lines) {
    const wanted = lines.map(({ label }) => label).join();
    if (wanted === this.#legendShown) return;
    this.#legendShown = wanted;
    showLegend(this.section, lines);
  }

  // The same values for those who do not see the chart, by the minute and only while it is open.
  #drawTable(last, lines) {
    const details = this.section.querySelector("details");
    const minute = Math.floor(last / 60) * 60;
    const wanted = `${minute} ${lines.map(({ label }) => label).join()}`;
    if (!details.open || wanted === this.#tableAt) return;
    this.#tableAt = wanted;
    const head = document.createElement("tr");
    head.append(cell("th", gettext("At"), "col"), ...lines.map(({ label }) => cell("th", label, "col")));
    const rows = Array.from({ length: WINDOW_S / 60 }, (_, ago) => {
      const row = document.createElement("tr");
      const at = minute - ago * 60;
      row.append(cell("th", time(at), "row"), ...lines.map(({ series, value }) => cell("td", this.#kind.format(value(series, at)))));
      return row;
    });
    details.querySelector("thead").replaceChildren(head);
    details.querySelector("tbody").replaceChildren(...rows);
  }
}

const cell = (tag, text, scope) => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (scope) element.scope = scope;
  if (tag === "td" || scope === "col") element.className = "numeric";
  return element;
};

const group = (label, options) => {
  const element = document.createElement("optgroup");
  element.label = label;
  element.append(...options.map(([value, text]) => new Option(text, value)));
  return element;
};

const gridFrom = (last) => Math.floor((last - WINDOW_S) / STEP_S) * STEP_S;

const points = (series, value, last) => {
  const found = [];
  for (let second = gridFrom(last); second < last; second += STEP_S) found.push({ x: second, y: value(series, second) });
  found.push({ x: last, y: value(series, last) });
  return found;
};

// One point a minute, drawn here: a radius that differs from point to point would make Chart.js
// resolve every option of every point anew each second.
const marks = {
  id: "marks",
  afterDatasetDraw({ ctx, data, chartArea }, { index, meta }) {
    const { data: values, pointStyle, borderColor, marksOffset_s } = data.datasets[index];
    ctx.save();
    [ctx.strokeStyle, ctx.fillStyle] = [borderColor, borderColor];
    values.forEach(({ x, y }, at) => {
      if (!(y > 0) || (x + marksOffset_s) % POINT_EVERY_S) return;
      const point = meta.data[at];
      if (point.x < chartArea.left) return;
      Chart.helpers.drawPoint(ctx, { pointStyle, radius: 3.5, borderWidth: 1.5 }, point.x, point.y);
    });
    ctx.restore();
  },
};

// The second that is pointed at, on every chart.
const crosshair = {
  id: "crosshair",
  beforeDatasetsDraw(chart) {
    if (chart.pointedAt === null || chart.pointedAt === undefined) return;
    const { ctx, chartArea: { top, bottom }, scales } = chart;
    const x = Math.round(scales.x.getPixelForValue(chart.pointedAt)) + 0.5;
    ctx.save();
    ctx.strokeStyle = token("--line-strong");
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, bottom);
    ctx.stroke();
    ctx.restore();
  },
};

const configuration = ({ format, tick = format, atLeast }) => {
  const options = {
    animation: false,
    parsing: false,
    normalized: true,
    responsive: true,
    maintainAspectRatio: false,
    events: [], // all charts are pointed at together, see `live-cursor.js`
    interaction: { mode: "index", intersect: false },
    elements: { line: { borderWidth: 1.75 }, point: { hitRadius: 0, hoverRadius: 4 } },
    scales: {
      x: { type: "linear", afterBuildTicks: wholeMinutes, border: { display: false }, grid: { drawTicks: false }, ticks: { callback: time, maxRotation: 0, padding: 6 } },
      y: {
        beginAtZero: true,
        suggestedMax: atLeast,
        border: { display: false },
        grid: { drawTicks: false },
        ticks: { callback: tick, maxTicksLimit: 5, padding: 6 },
        afterFit: (scale) => { scale.width = 64; }, // so that a longer figure does not push the chart
      },
    },
    plugins: {
      legend: { display: false },
      tooltip: {
        usePointStyle: true,
        padding: 10,
        boxPadding: 6,
        cornerRadius: 6,
        borderWidth: 1,
        filter: ({ parsed }) => !Number.isNaN(parsed.y),
        callbacks: {
          title: ([first]) => (first ? timeWithSeconds(first.parsed.x) : ""),
          label: ({ dataset, parsed }) => ` ${dataset.label}: ${format(parsed.y)}`,
        },
      },
    },
  };
  colour(options);
  return { type: "line", data: { datasets: [] }, options, plugins: [crosshair, marks] };
};

const colour = ({ scales, plugins }) => {
  for (const scale of Object.values(scales)) {
    scale.ticks.color = token("--ink-faint");
    scale.ticks.font = { family: token("--font-ui"), size: 11 };
  }
  scales.x.grid.color = "transparent";
  scales.y.grid.color = token("--line");
  Object.assign(plugins.tooltip, {
    backgroundColor: token("--surface-raised"),
    borderColor: token("--line-strong"),
    titleColor: token("--ink-soft"),
    bodyColor: token("--ink"),
  });
};

const wholeMinutes = (scale) => {
  const every = scale.max - scale.min < WINDOW_S ? 60 : scale.width < 420 ? 300 : 180;
  scale.ticks = [];
  for (let at = Math.ceil(scale.min / every) * every; at <= scale.max; at += every) scale.ticks.push({ value: at });
};
