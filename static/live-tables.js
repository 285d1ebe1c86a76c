// The small tables of the board: places and connections of each target, and who calls most.

import { count } from "./live-format.js";

const NOT_KNOWN = () => gettext("not known");
const figure = (value) => (value === null ? NOT_KNOWN() : count(value));

/** How much of each target is used, now. */
export const drawPlaces = (section, { lines }) => {
  const told = new Map(lines.map((line) => [String(line.id), line]));
  for (const row of section.querySelectorAll("tr[data-target]")) {
    const line = told.get(row.dataset.target);
    const texts = line ? placesOf(line) : Array(6).fill("–");
    [...row.querySelectorAll("td")].forEach((cell, at) => {
      if (cell.textContent !== texts[at]) cell.textContent = texts[at];
    });
  }
};

/** Take over which targets there are from the same section of the page anew. A row that is here keeps its figures. */
export const takePlaces = (section, fresh) => {
  const body = section.querySelector("tbody");
  if (!body || !fresh.querySelector("tbody")) {
    section.replaceChildren(...fresh.childNodes);
    return;
  }
  const here = new Map([...body.rows].map((row) => [row.dataset.target, row]));
  body.replaceChildren(...[...fresh.querySelectorAll("tr[data-target]")].map((row) => here.get(row.dataset.target) ?? row));
};

const placesOf = ({ in_use: inUse, places, queued, pool }) => {
  const names = [gettext("urgent"), gettext("normal"), gettext("batch")];
  const waiting = queued.map((each, at) => [each, names[at]]).filter(([each]) => each).map(([each, name]) => `${count(each)} ${name}`);
  const first = [`${count(inUse)} / ${count(places)}`, waiting.join(", ") || "0"];
  if (!pool) return [...first, ...Array(4).fill(gettext("not called yet"))];
  return [...first, count(pool.in_use), figure(pool.idle), count(pool.waiting), handshakes(pool)];
};

const handshakes = ({ reused, opened }) => {
  if (reused === null) return NOT_KNOWN();
  const all = reused + (opened ?? 0);
  return opened !== null && all ? interpolate(gettext("%(some)s of %(all)s"), { some: count(reused), all: count(all) }, true) : count(reused);
};

/** A table of who calls most: `rows` of [texts…]. */
export const drawBusiest = (section, rows) => {
  const wanted = JSON.stringify(rows);
  if (section.dataset.shown === wanted) return;
  section.dataset.shown = wanted;
  section.querySelector("[data-state=loading]")?.remove();
  section.querySelector("table").hidden = !rows.length;
  section.querySelector("[data-part=none]").hidden = rows.length > 0;
  section.querySelector("tbody").replaceChildren(...rows.map(([names, figures]) => {
    const row = document.createElement("tr");
    const head = Object.assign(document.createElement("th"), { scope: "row", textContent: names[0], className: "name" });
    row.append(head, ...names.slice(1).map((text) => cell(text, "name")), ...figures.map((text) => cell(text, "numeric")));
    return row;
  }));
};

const cell = (text, kind) => Object.assign(document.createElement("td"), { textContent: text, className: kind });
