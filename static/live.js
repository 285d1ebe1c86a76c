// The live page: what comes by socket goes to the store, and once a second the store is drawn.

import { Asking } from "./live-asking.js";
import { Breakers } from "./live-breakers.js";
import { ALL, forgetColours, kindsWith, LiveChart, nameOf, prepare, sampleOf, styleOf } from "./live-charts.js";
import { callsAddress, Cursor } from "./live-cursor.js";
import { count, duration, moneyIn, percent, rate, timeWithSeconds } from "./live-format.js";
import { Feed } from "./live-socket.js";
import { errorRate, Store, WINDOW_S } from "./live-store.js";
import { drawBusiest, drawPlaces, takePlaces } from "./live-tables.js";
import { Turns } from "./live-turns.js";

const ROWS = 20;
const LONGEST_ANSWER_MS = 15_000;

const page = document.getElementById("live");
const byId = (id) => document.getElementById(id);
const money = moneyIn(page.dataset.currency);
const kinds = kindsWith(money);
const store = new Store();

const jsonOf = (id, here = document) => JSON.parse(here.getElementById(id).textContent);
let names = jsonOf("live-names");
const places = new Map(names.routes.map((name, place) => [name, place]));
const hidden = new Set([ALL]);

let connection = "connecting";
let paused = null; // the store as it was then
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

const drawTiles = ({ total, refusals }, now) => {
  for (const [name, [value, format]] of Object.entries(TILES)) {
    const tile = page.querySelector(`[data-tile=${name}]`);
    const figure = value(total, now);
    tile.textContent = format(figure);
    tile.dataset.raw = figure;
  }
  const unpriced = total.sum("unpriced", now, WINDOW_S);
  note("spend", unpriced ? unpricedWords(unpriced) : gettext("last 15 min"));
  const refused = refusals.reduce((sum, [, times]) => sum + times, 0);
  note("calls", refused ? interpolate(gettext("15 min, %s refused"), [count(refused)]) : gettext("last 15 min"));
  page.querySelector("[data-note=calls]").title = refusals.map(([code, times]) => `${times} × ${code}`).join(", ");
  byId("simulated").hidden = !total.sum("simulated", now, WINDOW_S);
};

const unpricedWords = (calls) => interpolate(
  ngettext("last 15 min, %s call unpriced", "last 15 min, %s calls unpriced", calls), [count(calls)],
);

const note = (name, text) => {
  page.querySelector(`[data-note=${name}]`).textContent = text;
};

// Charts and their legend

const charts = new Map(); // by their sections
const cursor = new Cursor((chart, second, y) => {
  const route = chart.routeAt(second, y);
  const { routes, total } = paused ?? store;
  const latency = (routes.get(route) ?? total).at(second, "latency_p99");
  location.assign(callsAddress({ team: page.dataset.team, route, second, covers: chart.covers, latency_us: latency }));
});
const sections = page.querySelectorAll("[data-chart]");
const startChart = (section) => {
  if (charts.has(section)) return; // the turn before did it
  const chart = new LiveChart(section, kinds[section.dataset.chart], draw);
  charts.set(section, chart);
  cursor.add(chart);
};

// A chart that is far from sight waits, or stands still, until one scrolls towards it.
const near = new Set();
const sight = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) near[isIntersecting ? "add" : "delete"](target);
  draw();
}, { rootMargin: "100% 0px" });
for (const section of sections) {
  prepare(section, kinds[section.dataset.chart]);
  sight.observe(section);
}

const turns = new Turns();
const drawingsOf = (held, now, shown) => [...near].flatMap((section) => [
  ...(charts.has(section) ? [] : [() => startChart(section)]),
  () => charts.get(section).draw(held, now, shown),
]);

const drawn = (now) => {
  if (cursor.second !== null) cursor.redraw();
  page.dataset.drawn = now;
};

/** The model names that were called, in the order of their styles: [name, place, series]. */
const series = ({ routes, total }) => {
  for (const name of routes.keys()) if (!places.has(name)) places.set(name, places.size);
  const called = [...routes].map(([name, rows]) => [name, places.get(name), rows]);
  called.sort((one, other) => one[1] - other[1]);
  return called.length > 1 ? [...called, [ALL, ALL, total]] : called;
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
  answered: [gettext("Answered"), "badge-good"],
  rejected: [gettext("Rejected"), "badge-warn"],
  hung_up: [gettext("Hung up"), "badge-warn"],
  failed: [gettext("Failed"), "badge-bad"],
  truncated: [gettext("Truncated"), "badge-bad"],
  abandoned: [gettext("Abandoned"), "badge-bad"],
};
const rows = new Map();
const latestOf = ({ calls }) => calls.slice(0, ROWS);

const drawLatest = (latest) => {
  const table = byId("latest");
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
  row.title = interpolate(gettext("Call %s"), [call.id]);
  if (fresh) row.className = "fresh";
  row.append(
    field(timeWithSeconds(call.at_us / 1_000_000)),
    modelName(call),
    outcome(call),
    field(call.outcome === "abandoned" ? "–" : duration(call.latency_us), "numeric"),
    field(duration(call.first_token_us), "numeric"),
    field(tokensOf(call, call.input_tokens), "numeric"),
    field(tokensOf(call, call.output_tokens), "numeric"),
    field(call.unpriced ? gettext("unpriced") : money(call.cost_nanos), "numeric"),
    field(keyName(call.key), "name"),
    ...(page.dataset.team ? [] : [field(teamName(call.team), "name")]),
  );
  return row;
};

// A key made after the page was opened has no name here yet: the page knows it by now.
const keyName = (key) => {
  if (!(key in names.keys)) asking.unknown(`key ${key}`);
  return names.keys[key] ?? interpolate(gettext("key %s"), [key]);
};
const teamName = (team) => {
  if (!(team in names.teams)) asking.unknown(`team ${team}`);
  return names.teams[team] ?? interpolate(gettext("team %s"), [team]);
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
  if (call.simulated) cell.append(" ", badge(gettext("simulated"), "badge-warn"));
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

// What this page lacks: names, new targets, and why a breaker did what was seen.

/** This page as the server would give it now; null: it does not. */
const pageAnew = async () => {
  const asked = { redirect: "error", signal: AbortSignal.timeout(LONGEST_ANSWER_MS) };
  const text = await fetch(location.href, asked).then((answer) => (answer.ok ? answer.text() : "")).catch(() => "");
  const fresh = new DOMParser().parseFromString(text, "text/html");
  return fresh.getElementById("live-names") ? fresh : null;
};

const takePage = (fresh) => {
  if (paused) {
    late.page = fresh;
    return;
  }
  takeNames(jsonOf("live-names", fresh));
  if (!page.dataset.team) takePlaces(byId("target-use"), fresh.getElementById("target-use"));
  breakers.learn(jsonOf("live-breakers", fresh), fresh.getElementById("breakers"));
  drawPlacesNow();
  draw();
};

const takeNames = (fresh) => {
  if (JSON.stringify(fresh) === JSON.stringify(names)) return;
  names = fresh;
  for (const row of rows.values()) row.remove();
  rows.clear();
  drawLatest(latestOf(store)); // at once, so that the table is never seen empty
};

const asking = new Asking(pageAnew, takePage);

// Targets, and who calls most: only what is now, so a paused page keeps what it shows, and takes the latest when it goes on.

const breakers = new Breakers(byId("breakers"), jsonOf("live-breakers"), asking);
let late = {};
let targetsNow = null;

const takeNow = ({ targets, busiest, id }) => {
  if (targets) {
    targetsNow = targets;
    breakers.take(targets, id);
    drawPlacesNow();
  }
  if (busiest) drawAllBusiest(busiest);
};

const drawPlacesNow = () => {
  if (targetsNow && !page.dataset.team) drawPlaces(byId("target-use"), targetsNow);
};

// A message tells of the targets only when something about them is new.
const keepForLater = ({ targets, busiest, id }) => {
  if (targets) Object.assign(late, { targets, id });
  if (busiest) Object.assign(late, { busiest });
};

const takeLate = () => {
  const { page: fresh, ...message } = late;
  late = {};
  takeNow(message);
  if (fresh) takePage(fresh);
};

const drawAllBusiest = ({ keys, teams }) => {
  const figures = ([calls, errors, cost]) => [count(calls), count(errors), money(cost)];
  const ofKeys = keys.map(([team, key, ...rest]) => [page.dataset.team ? [keyName(key)] : [keyName(key), teamName(team)], figures(rest)]);
  drawBusiest(page.querySelector("[data-busiest=keys]"), ofKeys);
  if (teams) drawBusiest(page.querySelector("[data-busiest=teams]"), teams.map(([team, ...rest]) => [[teamName(team)], figures(rest)]));
};

// Drawing: while paused everything is taken in as before, and drawn from a copy of what there was.

const draw = () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    const held = paused ?? store;
    if (held.lastId && !document.hidden) drawAll(held);
  });
};

const drawAll = (held) => {
  const now = held.lastId;
  drawTiles(held, now);
  const all = series(held);
  const busy = all.length > 0 || held.calls.length > 0 || held.isUnderWay;
  byId("busy").hidden = byId("latest-calls").hidden = !busy;
  byId("empty").hidden = busy;
  if (busy) drawLegend(all);
  const ofCalls = busy ? drawingsOf(held, now, all.filter(([name]) => !hidden.has(name))) : [];
  turns.take([...ofCalls, ...tables(latestOf(held), now), () => drawn(now)]);
};

const tables = (latest, now) => [() => drawLatest(latest), () => breakers.draw(now)];

const CONNECTION = {
  connecting: [gettext("Connecting"), ""],
  reconnecting: [gettext("Reconnecting"), "badge-bad"],
  live: [gettext("Live"), "badge-good"],
  paused: [gettext("Paused"), "badge-warn"],
};

const drawConnection = () => {
  const shown = paused && connection === "live" ? "paused" : connection;
  const element = byId("connection");
  if (page.dataset.connection === shown) return;
  page.dataset.connection = shown;
  [element.textContent, element.className] = [CONNECTION[shown][0], `badge ${CONNECTION[shown][1]}`];
  drawLost(shown === "reconnecting");
};

const drawLost = (isLost) => {
  const notice = byId("lost");
  notice.hidden = !isLost;
  if (!isLost) return;
  const { lastId } = paused ?? store;
  notice.textContent = lastId
    ? interpolate(gettext("The line is lost. What is shown is of %s and before; the gap is filled when the line is back."), [timeWithSeconds(lastId)])
    : gettext("The line is lost before anything came. It is tried again.");
};

// What the figures lack: a process that was not heard in time, or Redis, and then all that it carries.

const drawMissing = (missing) => {
  const notice = byId("missing");
  notice.hidden = !missing.length;
  if (missing.includes("the database")) notice.textContent = gettext("The database is away: calls go on, and are kept in the journal until they can be booked.");
  else if (missing.includes("Redis")) notice.textContent = gettext("Redis is away: the charts stand still, and fill the gap when it is back.");
  else notice.textContent = interpolate(gettext("Without the figures of %s, which come late or not at all."), [missing.join(", ")]);
};

const PAUSE = "M2 1h3v10H2zM7 1h3v10H7z";
const RESUME = "M2.5 1l8 5-8 5z";
const pause = byId("pause");
const drawPause = () => {
  pause.toggleAttribute("data-paused", paused !== null);
  pause.querySelector("path").setAttribute("d", paused ? RESUME : PAUSE);
  pause.querySelector("span").textContent = paused ? resumeWords() : gettext("Pause");
};
// The store knows no more than its window: of a longer pause it tells how many there are at least.
let waiting = 0;
const resumeWords = () => {
  const span = store.lastId - paused.lastId;
  waiting = Math.max(span > WINDOW_S ? waiting : 0, store.total.sum("calls", store.lastId, Math.min(span, WINDOW_S)));
  const words = `${span > WINDOW_S ? "≥ " : ""}${count(waiting)}`;
  return waiting ? interpolate(gettext("Resume (%s new)"), [words]) : gettext("Resume");
};
pause.addEventListener("click", () => {
  paused = paused || !store.lastId ? null : store.frozen();
  drawPause();
  drawConnection();
  if (paused) return;
  takeLate();
  draw();
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
      if (paused) {
        keepForLater(message);
        return;
      }
      takeNow(message);
      draw();
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
  for (const chart of charts.values()) chart.restyle();
  draw();
});
byId("team-form")?.addEventListener("change", (event) => event.currentTarget.submit());
feed.connect();
