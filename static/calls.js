// The lists of calls: keys, the live tail, and what filters need beyond htmx.
// Listens on the document, because filters put a new list in the old one's place.

const MOST_ROWS = 200;
const EVERY_MS = 2000;

const calls = () => [...document.querySelectorAll("#found tr[data-call]")];
const links = () => [...document.querySelectorAll("#found .call-link")];
const isTyping = (node) => node.closest("input:not([type=checkbox]), select, textarea, [contenteditable]") !== null;

// Keys

const move = (step) => {
  const all = links();
  const at = all.indexOf(document.activeElement);
  const next = all[at === -1 ? (step > 0 ? 0 : all.length - 1) : at + step];
  next?.focus();
  next?.closest("tr").scrollIntoView({ block: "nearest" });
};

const onKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.getElementById("calls_q");
  if (event.key === "Escape" && event.target === search && search.value === "") search.blur();
  if (isTyping(event.target)) return;
  const onRow = event.target.classList.contains("call-link");
  if (event.key === "/" && search) search.focus();
  else if (event.key === "j" || (onRow && event.key === "ArrowDown")) move(1);
  else if (event.key === "k" || (onRow && event.key === "ArrowUp")) move(-1);
  else return;
  event.preventDefault();
};
document.addEventListener("keydown", onKey);

// Another team has other keys to choose from, so the whole page is fetched.

document.addEventListener("input", (event) => {
  if (event.target.id !== "calls_team") return;
  event.stopPropagation();
  const address = new URL(location);
  for (const name of ["key", "after"]) address.searchParams.delete(name);
  address.searchParams.set("team", event.target.value);
  location.assign(address);
}, true);

// After "Earlier ones" the reader goes on with the first row that came.

let rowsBefore = null;
document.addEventListener("htmx:beforeRequest", ({ target }) => {
  rowsBefore = target.matches?.("[data-earlier]") ? links().length : null;
});
document.addEventListener("htmx:afterSettle", () => {
  if (rowsBefore === null) return;
  dropRepeated();
  tail.cutS = -Infinity;
  links()[rowsBefore]?.focus({ preventScroll: true });
  rowsBefore = null;
});

// The live tail. It asks every two seconds while it is switched on and somebody can see it;
// while a row is under the pointer or has the focus, what comes waits, so that nothing moves.

const tail = { on: new URLSearchParams(location.search).get("live") === "1", from: "", came: 0, waiting: [], cutS: -Infinity, asks: false };

const bar = () => document.querySelector("[data-tail]");
const body = () => document.querySelector("#found tbody");
const isHeld = () => body()?.matches(":hover") || body()?.contains(document.activeElement);

const say = (text) => {
  const line = document.querySelector("[data-tail-said]");
  if (line && line.textContent !== text) line.textContent = text;
};

const told = () => {
  if (!tail.on) return "";
  const waiting = tail.waiting.length;
  if (waiting) return interpolate(ngettext("%s new call waits while you are at a row", "%s new calls wait while you are at a row", waiting), [waiting]);
  if (!tail.came) return gettext("Nothing new so far");
  return interpolate(ngettext("%s new call", "%s new calls", tail.came), [tail.came]);
};

const startedS = (row) => Number(row.dataset.started);

/** "Earlier ones" after this row, in the place of the one there was. */
const goOnAfter = (row) => {
  const earlier = document.querySelector("[data-earlier-row]").content.firstElementChild.cloneNode(true);
  const address = new URL(bar().dataset.tail, location);
  address.searchParams.set("after", row.dataset.place);
  const link = earlier.querySelector("a");
  link.href = `${address.pathname}${address.search}`;
  link.setAttribute("hx-get", link.getAttribute("href"));
  body().querySelector(".earlier")?.remove();
  body().append(earlier);
  htmx.process(earlier);
};

// A call comes at its end, so a long one stands above some that started after it. What is left of the list
// goes on after a row that started later than all that went (`tail.cutS`, in seconds since 1970): calls are
// repeated then, but none is left out.

/** Takes away the last of too many rows. */
const trim = () => {
  const rows = calls();
  const gone = rows.splice(MOST_ROWS);
  if (!gone.length) return;
  const cutS = Math.max(tail.cutS, ...gone.map(startedS));
  const last = rows.findLast((row) => startedS(row) > cutS);
  if (!last) return; // some rows too many, until later calls come
  tail.cutS = cutS;
  for (const row of gone) row.remove();
  goOnAfter(last);
};

/** Of what "Earlier ones" brought, what is shown higher up already. */
const dropRepeated = () => {
  const seen = new Set();
  for (const row of calls()) {
    if (seen.has(row.dataset.call)) row.remove();
    seen.add(row.dataset.call);
  }
};

const show = () => {
  if (isHeld() || !tail.waiting.length) return;
  const rows = tail.waiting.splice(0);
  if (rows.length > MOST_ROWS) return reload(); // some could not be kept
  for (const row of rows) row.classList.add("is-new");
  body().prepend(...rows);
  trim();
};

const keep = (html) => {
  const part = document.createElement("template");
  part.innerHTML = html;
  const seen = new Set([...calls(), ...tail.waiting].map((row) => row.dataset.call));
  const rows = [...part.content.querySelectorAll("tr[data-call]")].filter((row) => !seen.has(row.dataset.call));
  tail.came += rows.length;
  tail.waiting = [...rows, ...tail.waiting].slice(0, MOST_ROWS + 1);
};

const reload = () => htmx.ajax("GET", bar().dataset.tail, { target: "#found", select: "#found", swap: "outerHTML" });

const ask = async (here) => {
  const address = new URL(here.dataset.tail, location);
  address.searchParams.set("tail", tail.from);
  const answer = await fetch(address, { headers: { "HX-Request": "true" } });
  const html = await answer.text();
  if (!tail.on || bar() !== here) return; // nobody waits for it now, or another question is asked
  if (answer.redirected) return location.reload(); // signed out meanwhile
  if (answer.status === 205) return reload();
  if (!answer.ok) throw new Error(answer.status);
  keep(html);
  tail.from = answer.headers.get("X-Tail-From");
  if (body()) await show();
  else if (tail.waiting.length) return reload(); // the first call of an empty list
  say(told());
};

const tick = async () => {
  if (!tail.on || document.hidden || tail.asks || !bar()) return;
  tail.asks = true;
  try {
    await ask(bar());
  } catch {
    if (tail.on) say(gettext("The gateway does not answer; trying again"));
  } finally {
    tail.asks = false;
  }
};

const begin = () => {
  const here = bar();
  if (!here) return;
  here.hidden = false;
  here.querySelector("[data-tail-switch]").checked = tail.on;
  Object.assign(tail, { from: here.dataset.tailFrom, came: 0, waiting: [], cutS: -Infinity });
  say(told());
};

const remember = () => {
  const address = new URL(location);
  if (tail.on) address.searchParams.set("live", "1");
  else address.searchParams.delete("live");
  history.replaceState(history.state, "", address);
};

document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-tail-switch]")) return;
  tail.on = event.target.checked;
  remember();
  say(told());
  tick();
});
document.addEventListener("htmx:afterSettle", ({ detail }) => {
  if (detail.target?.id === "found" || detail.elt?.id === "found" || detail.elt === document.body) begin();
});
document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (tail.on && detail.elt.id === "question") detail.parameters.live = "1";
});
document.addEventListener("htmx:historyRestore", begin);
document.addEventListener("visibilitychange", tick);
setInterval(tick, EVERY_MS);
begin();
