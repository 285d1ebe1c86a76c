// The usage page's charts. Their figures come with the page, and again with each part of it that is fetched.

import { forgetColours, sampleOf, styleOf } from "./live-charts.js";
import { count, duration, durationTick, moneyIn, percent } from "./live-format.js";

const NONE = "–";
const language = document.documentElement.lang || undefined;
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Bars stand on each other where their sum means something; percentiles are lines.
const kindsWith = (money) => ({
  spend: { type: "bar", format: money },
  calls: { type: "bar", format: count },
  errors: { type: "bar", format: count },
  tokens: { type: "bar", format: count },
  latency: { type: "line", format: duration, tick: durationTick },
  first_token: { type: "line", format: duration, tick: durationTick },
});

// What was before is the ink's own colour, faint and dashed; a rate is a line over bars, with an axis of its own.
const BEFORE = { property: "--ink-faint", dash: [4, 4], point: "circle" };
const RATE = { property: "--series-2", dash: [], point: "rect" };
const ERRORS = { property: "--series-4", dash: [], point: "circle" };

const styleIn = (chart, line, place) => {
  if (line.kind === "before") return BEFORE;
  if (line.kind === "rate") return RATE;
  return chart === "errors" ? ERRORS : styleOf(place);
};
const formatOf = (kind, line) => (line.kind === "rate" ? percent : kind.format);
const told = (kind, line, value) => (value === null ? NONE : formatOf(kind, line)(value));

const dataset = (kind, chart, line, place) => {
  const style = styleIn(chart, line, place);
  const isBar = kind.type === "bar" && !line.kind;
  const ink = token(style.property);
  const shared = { borderColor: ink, backgroundColor: ink, type: isBar ? "bar" : "line", label: line.name || NONE, data: line.data, property: style.property, line, order: isBar ? 2 : 1 };
  if (isBar) return { ...shared, maxBarThickness: 48, borderWidth: 0, stack: "now" };
  const isBefore = line.kind === "before";
  return {
    ...shared,
    yAxisID: line.kind === "rate" ? "rate" : "y",
    stack: line.kind || line.name, // lines stand on nothing
    borderDash: style.dash,
    pointStyle: style.point,
    pointRadius: isBefore ? 0 : 2.5,
    borderWidth: isBefore ? 1.5 : 1.75,
    spanGaps: true,
  };
};

const options = (kind, hasRate, titles, follow) => ({
  animation: false,
  responsive: true,
  maintainAspectRatio: false,
  events: ["mousemove", "mouseout", "click", "touchstart", "touchmove"],
  interaction: { mode: "index", intersect: false },
  onClick: follow,
  onHover: (event, found) => { event.native.target.dataset.leads = String(found.length > 0); },
  scales: {
    x: { stacked: kind.type === "bar", border: { display: false }, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 16, callback: (_, place) => titles.short[place] } },
    y: { stacked: kind.type === "bar", beginAtZero: true, border: { display: false }, grid: { drawTicks: false }, ticks: { callback: kind.tick ?? kind.format, maxTicksLimit: 5, padding: 6, precision: kind.format === count ? 0 : undefined } },
    ...(hasRate && { rate: { position: "right", beginAtZero: true, suggestedMax: 0.05, border: { display: false }, grid: { display: false }, ticks: { callback: percent, maxTicksLimit: 5, padding: 6 } } }),
  },
  plugins: {
    colors: { enabled: false }, // Chart.js would choose its own
    legend: { display: false },
    tooltip: {
      padding: 10,
      boxPadding: 6,
      cornerRadius: 6,
      borderWidth: 1,
      callbacks: {
        title: ([item]) => titles.long[item.dataIndex],
        label: ({ dataset: { line }, raw }) => ` ${line.name || NONE}: ${told(kind, line, raw)}`,
      },
    },
  },
});

const colour = (chart) => {
  for (const scale of Object.values(chart.options.scales)) {
    scale.ticks.color = token("--ink-faint");
    scale.ticks.font = { family: token("--font-ui"), size: 11 };
  }
  chart.options.scales.y.grid.color = token("--line");
  Object.assign(chart.options.plugins.tooltip, {
    backgroundColor: token("--surface-raised"),
    borderColor: token("--line-strong"),
    titleColor: token("--ink-soft"),
    bodyColor: token("--ink"),
  });
  for (const each of chart.data.datasets) each.borderColor = each.backgroundColor = token(each.property);
  chart.update();
};

// Moments as the reader's language writes them; as the server did where the browser does not know the zone.
const SHORT = {
  minute: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  hour: { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  day: { month: "short", day: "numeric" },
  month: { year: "numeric", month: "short" },
};
const SHORT_OF = { "5 minutes": "minute", "quarter-hour": "minute", week: "day" };
const titlesOf = ({ labels, edges, step, zone }) => {
  try {
    const own = new Intl.DateTimeFormat(language, { ...SHORT[SHORT_OF[step] ?? step], timeZone: zone });
    const short = edges.slice(0, -1).map((each) => own.format(new Date(each)));
    return { short, long: labels };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { short: labels, long: labels };
  }
};

// A bar has neither dashes nor points: a square of its colour stands for it, in the order of the stack.
const svg = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const swatch = ({ property }) => {
  const drawn = svg("svg", { viewBox: "0 0 10 10", width: 10, height: 10, "aria-hidden": "true" });
  drawn.append(svg("rect", { width: 10, height: 10, rx: 2, fill: "currentColor" }));
  drawn.style.color = `var(${property})`;
  return drawn;
};

const showLegend = (section, chart, kind, lines) => {
  section.querySelector("[data-legend]").replaceChildren(...lines.map((line, place) => {
    const item = document.createElement("span");
    item.className = "legend-item";
    const isBar = kind.type === "bar" && !line.kind;
    item.append((isBar ? swatch : sampleOf)(styleIn(chart, line, place)), line.name || NONE);
    return item;
  }));
};

const cell = (tag, text, scope) => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (scope) made.scope = scope;
  if (scope !== "row") made.className = "numeric";
  return made;
};

// The same values for those who do not see the chart, made when they are asked for.
const drawTable = (details, kind, lines, found) => {
  const head = document.createElement("tr");
  const first = cell("th", `${gettext("From")}, ${found.zone}`, "col");
  first.className = "";
  head.append(first, ...lines.map((line) => cell("th", line.name || NONE, "col")));
  const rows = found.labels.map((label, place) => {
    const row = document.createElement("tr");
    const title = cell("th", "", "row");
    const link = document.createElement("a");
    link.href = behind(found, found.calls, place);
    link.textContent = label;
    title.append(link);
    row.append(title, ...lines.map((line) => cell("td", told(kind, line, line.data[place]))));
    return row;
  });
  details.querySelector("thead").replaceChildren(head);
  details.querySelector("tbody").replaceChildren(...rows);
};

// The calls of one point.
const behind = ({ edges }, list, place) => {
  const address = new URL(list, location.origin);
  address.searchParams.set("since", edges[place]);
  address.searchParams.set("until", edges[place + 1]);
  return `${address.pathname}${address.search}`;
};

const follower = (found) => (event, _, chart) => {
  const [item] = chart.getElementsAtEventForMode(event.native, "nearest", { intersect: true }, false);
  const [point] = chart.getElementsAtEventForMode(event.native, "index", { intersect: false }, false);
  if (!point) return;
  const line = item && chart.data.datasets[item.datasetIndex].line;
  location.assign(behind(found, line?.calls || found.calls, point.index));
};

let made = [];

const draw = (page) => {
  const found = JSON.parse(document.getElementById("usage-charts").textContent);
  const kinds = kindsWith(moneyIn(page.dataset.currency));
  const titles = found.labels && titlesOf(found);
  made = [...page.querySelectorAll("[data-chart]")].map((section) => {
    const name = section.dataset.chart;
    const [kind, lines] = [kinds[name], found.charts[name]];
    const hasRate = lines.some((line) => line.kind === "rate");
    const datasets = lines.map((line, place) => dataset(kind, name, line, place));
    const chart = new Chart(section.querySelector("canvas"), {
      type: kind.type, data: { labels: found.labels, datasets }, options: options(kind, hasRate, titles, follower(found)),
    });
    showLegend(section, name, kind, lines);
    const details = section.querySelector("[data-table]");
    details.addEventListener("toggle", () => details.open && drawTable(details, kind, lines, found));
    colour(chart);
    return chart;
  });
};

const redraw = () => {
  for (const each of made) each.destroy();
  made = [];
  const page = document.getElementById("usage");
  if (page) draw(page);
};
redraw();
document.addEventListener("htmx:afterSettle", redraw);
document.addEventListener("htmx:historyRestore", redraw);

// A question that cannot be read is answered by the page that says so.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (detail.target.id !== "usage" || detail.xhr.status !== 422) return;
  detail.shouldSwap = true;
  detail.isError = false;
});

document.addEventListener("penstock:theme", () => {
  forgetColours();
  made.forEach(colour);
});
