// The live page: what comes by socket goes to the store, and once a second the store is drawn.

import { ALL, forgetColours, kindsWith, LiveChart, nameOf, sampleOf, styleOf } from "./live-charts.js";
import { count, duration, moneyIn, percent, rate, timeWithSeconds } from "./live-format.js";
import { Feed } from "./live-socket.js";
import { errorRate, Store, WINDOW_S } from "./live-store.js";

const ROWS = 20;

const page = document.getElementById("live");
const byId = (id) => document.getElementById(id);
const money = moneyIn(page.dataset.currency);
const kinds = kindsWith(money);
const store = new Store();

let names = JSON.parse(byId("live-names").textContent);
const places = new Map(names.routes.map((name, place) => [name, place]));
const hidden = new Set([ALL]);

let connection = "connecting";
let pausedAt = 0;
let drawing = 0;

// Tiles

const TILES = {
  calls_per_s: [(all, now) => all.sum("calls", now, 10) / 10, rate],
  error_rate: [errorRate, percent],
  latency_p95: [(all, now) => all.at(now, "latency_p95"), duration],
  first_token_p50: [(all, now) => all.at(now, "first_token_p50"), duration],
  tokens_per_s: [(all, now) => (all.sum("input_tokens", now, 10) + all.sum("output_tokens", now, 10)) / 10, rate],
  spend: [(all, now) => all.sum("cost_nanos", now, WINDOW_S), money],
  calls: [(all, now) => all.sum("calls", now, WINDOW_S), count],
};

const drawTiles = (now) => {
  for (const [name, [value, format]] of Object.entries(TILES)) {
    const tile = page.querySelector(`[data-tile=${name}]`);
    const figure = value(store.total, now);
    tile.textContent = format(figure);
    tile.dataset.raw = figure;
  }
  const unpriced = store.total.sum("unpriced", now, WINDOW_S);
  note("spend", unpriced ? `last 15 min, ${count(unpriced)} calls unpriced` : "last 15 min");
  const refusals = store.refusals;
  const refused = refusals.reduce((sum, [, times]) => sum + times, 0);
  note("calls", refused ? `15 min, ${count(refused)} refused` : "last 15 min");
  page.querySelector("[data-note=calls]").title = refusals.map(([code, times]) => `${times} × ${code}`).join(", ");
  byId("simulated").hidden = !store.total.sum("simulated", now, WINDOW_S);
};

const note = (name, text) => {
  page.querySelector(`[data-note=${name}]`).textContent = text;
};

// Charts and their legend

const charts = [];
const startCharts = () => {
  for (const section of page.querySelectorAll("[data-chart]")) {
    charts.push(new LiveChart(section, kinds[section.dataset.chart], draw));
  }
};

/** The model names that were called, in the order of their styles: [name, place, series]. */
const series = () => {
  for (const name of store.routes.keys()) if (!places.has(name)) places.set(name, places.size);
  const called = [...store.routes].map(([name, rows]) => [name, places.get(name), rows]);
  called.sort((one, other) => one[1] - other[1]);
  return called.length > 1 ? [...called, [ALL, ALL, store.total]] : called;
};

const drawLegend = (all) => {
  const legend = byId("legend");
  const wanted = JSON.stringify(all.map(([name]) => nameOf(name)));
  if (legend.dataset.shown === wanted) return;
  legend.dataset.shown = wanted;
  legend.replaceChildren(...all.map(([name, place]) => legendButton(name, place)));
};

const legendButton = (name, place) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "legend-item";
  button.setAttribute("aria-pressed", String(!hidden.has(name)));
  button.append(sampleOf(styleOf(place)), nameOf(name));
  button.addEventListener("click", () => {
    if (!hidden.delete(name)) hidden.add(name);
    button.setAttribute("aria-pressed", String(!hidden.has(name)));
    draw();
  });
  return button;
};

// The latest calls

const OUTCOMES = {
  answered: ["Answered", "badge-good"],
  rejected: ["Rejected", "badge-warn"],
  hung_up: ["Hung up", "badge-warn"],
  failed: ["Failed", "badge-bad"],
  truncated: ["Truncated", "badge-bad"],
  abandoned: ["Abandoned", "badge-bad"],
};
const rows = new Map();

const drawLatest = () => {
  const table = byId("latest");
  const latest = store.calls.slice(0, ROWS);
  const wanted = new Set(latest.map(({ id }) => id));
  for (const [id, row] of rows) if (!wanted.has(id)) { row.remove(); rows.delete(id); }
  const first = rows.size === 0;
  latest.forEach((call, at) => {
    if (!rows.has(call.id)) rows.set(call.id, callRow(call, !first));
    if (table.children[at] !== rows.get(call.id)) table.insertBefore(rows.get(call.id), table.children[at] ?? null);
  });
};

const callRow = (call, fresh) => {
  const row = document.createElement("tr");
  row.dataset.call = call.id;
  row.title = `Call ${call.id}`;
  if (fresh) row.className = "fresh";
  row.append(
    field(timeWithSeconds(call.at_us / 1_000_000)),
    modelName(call),
    outcome(call),
    field(call.outcome === "abandoned" ? "–" : duration(call.latency_us), "numeric"),
    field(duration(call.first_token_us), "numeric"),
    field(tokensOf(call, call.input_tokens), "numeric"),
    field(tokensOf(call, call.output_tokens), "numeric"),
    field(call.unpriced ? "unpriced" : money(call.cost_nanos), "numeric"),
    field(names.keys[call.key] ?? `key ${call.key}`, "name"),
    ...(page.dataset.team ? [] : [field(names.teams[call.team] ?? `team ${call.team}`, "name")]),
  );
  if (!(call.key in names.keys)) askName(call.key);
  return row;
};

const tokensOf = (call, tokens) => `${call.usage_basis === "estimated" ? "≈\u202f" : ""}${count(tokens)}`;

const field = (text, kind = "") => {
  const cell = document.createElement("td");
  cell.textContent = text;
  cell.className = kind;
  return cell;
};

const badge = (text, kind) => {
  const element = document.createElement("span");
  element.className = `badge ${kind}`;
  element.textContent = text;
  return element;
};

const modelName = (call) => {
  const cell = field(call.model_name, "name");
  if (call.simulated) cell.append(" ", badge("simulated", "badge-warn"));
  return cell;
};

const outcome = (call) => {
  const cell = field("", "outcome");
  const [text, kind] = OUTCOMES[call.outcome];
  cell.append(badge(text, kind));
  if (call.outcome === "answered") return cell;
  const why = document.createElement("span");
  why.className = "why";
  why.textContent = `${call.status} ${call.code}`;
  cell.append(why);
  return cell;
};

// A key made after the page was opened has no name here yet: the page knows it by now.
const asked = new Set();
const askName = async (key) => {
  if (asked.has(key)) return;
  asked.add(key);
  const answer = await fetch(location.href, { redirect: "error" }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  names = JSON.parse(fresh.getElementById("live-names").textContent);
  for (const row of rows.values()) row.remove();
  rows.clear();
  draw();
};

// Drawing: while paused everything is taken in as before, and drawn as it was.

const draw = () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (store.lastId && !document.hidden) drawUpTo(pausedAt || store.lastId);
  });
};

const drawUpTo = (now) => {
  drawTiles(now);
  const all = series();
  const busy = all.length > 0 || store.calls.length > 0;
  byId("busy").hidden = !busy;
  byId("empty").hidden = busy;
  if (busy) drawBusy(now, all);
  page.dataset.drawn = now;
};

const drawBusy = (now, all) => {
  if (!charts.length) startCharts();
  drawLegend(all);
  const shown = all.filter(([name]) => !hidden.has(name));
  for (const chart of charts) chart.draw(store, now, shown);
  if (!pausedAt) drawLatest();
};

const CONNECTION = {
  connecting: ["Connecting", ""],
  reconnecting: ["Reconnecting", "badge-bad"],
  live: ["Live", "badge-good"],
  paused: ["Paused", "badge-warn"],
};

const drawConnection = () => {
  const shown = pausedAt && connection === "live" ? "paused" : connection;
  const element = byId("connection");
  if (page.dataset.connection === shown) return;
  page.dataset.connection = shown;
  [element.textContent, element.className] = [CONNECTION[shown][0], `badge ${CONNECTION[shown][1]}`];
};

// What the figures lack: a process that was not heard in time, or Redis, and then all that it carries.

const drawMissing = (missing) => {
  const notice = byId("missing");
  notice.hidden = !missing.length;
  if (missing.includes("Redis")) notice.textContent = "Redis is away: the charts stand still, and fill the gap when it is back.";
  else notice.textContent = `Without the figures of ${missing.join(", ")}, which come late or not at all.`;
};

const PAUSE = "M2 1h3v10H2zM7 1h3v10H7z";
const RESUME = "M2.5 1l8 5-8 5z";
const pause = byId("pause");
const drawPause = () => {
  const waiting = pausedAt ? store.total.sum("calls", store.lastId, Math.min(store.lastId - pausedAt, WINDOW_S)) : 0;
  pause.toggleAttribute("data-paused", pausedAt > 0);
  pause.querySelector("path").setAttribute("d", pausedAt ? RESUME : PAUSE);
  pause.querySelector("span").textContent = pausedAt ? (waiting ? `Resume (${count(waiting)} new)` : "Resume") : "Pause";
};
pause.addEventListener("click", () => {
  pausedAt = pausedAt ? 0 : store.lastId;
  drawPause();
  drawConnection();
  if (!pausedAt) draw();
});

const feed = new Feed(
  () => {
    const address = new URL("/ws/live/", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = new URLSearchParams({ team: page.dataset.team, run: store.run, since: store.lastId });
    return address;
  },
  {
    message: (message) => {
      store.take(message);
      drawMissing(message.missing);
      page.dataset.received = store.lastId;
      drawPause();
      if (!pausedAt) draw();
    },
    state: (name) => {
      connection = name;
      drawConnection();
    },
    // Signed out, or no longer on the team: the server says it better.
    refused: () => location.reload(),
  },
);

document.addEventListener("visibilitychange", draw);
document.addEventListener("penstock:theme", () => {
  forgetColours();
  for (const chart of charts) chart.restyle();
  draw();
});
byId("team-form")?.addEventListener("change", (event) => event.currentTarget.submit());
feed.connect();
