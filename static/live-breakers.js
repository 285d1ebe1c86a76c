// The breakers' strips: one a target, the last 15 minutes in coloured pieces with words.

import { duration, timeWithSeconds } from "./live-format.js";
import { WINDOW_S } from "./live-store.js";
import { pieces, see, unexplained } from "./live-strips.js";

const STATES = {
  closed: { word: () => gettext("Closed"), badge: "badge-good" },
  half_open: { word: () => gettext("Half-open"), badge: "badge-warn" },
  open: { word: () => gettext("Open"), badge: "badge-bad" },
};
const ORDER = ["open", "half_open", "closed"]; // of `breakers` in dashboard/standing.py
const MOST_ANSWERS = 3; // without a word of a change that was seen: then the books will not tell of it

export class Breakers {
  #section;
  #lines = new Map();
  #changes;
  #asking;
  #told = null;

  /** `changes` by target id; `asking` is told when a breaker did something that they do not tell, and of new targets. */
  constructor(section, changes, asking) {
    this.#section = section;
    this.#changes = changes;
    this.#asking = asking;
    this.#addAll();
    section.addEventListener("keydown", walk);
  }

  #addAll() {
    for (const element of this.#section.querySelectorAll("[data-target]")) this.#add(element);
    this.#section.querySelector(".more")?.addEventListener("toggle", () => this.#drawTable());
  }

  #add(element) {
    const strip = element.querySelector(".strip");
    const line = { element, strip, seen: [], pieces: new Map(), shown: [] };
    this.#lines.set(element.dataset.target, line);
    for (const kind of ["pointerover", "focusin"]) strip.addEventListener(kind, ({ target }) => this.#say(target));
  }

  /** How the targets were at a second. A target that is new comes with the next answer of the page. */
  take(told, now) {
    this.#told = [told, now];
    const { lines, of } = told;
    const known = new Map(lines.map((line) => [String(line.id), line]));
    let isNews = false;
    for (const [id, line] of this.#lines) {
      const now_ = known.get(id);
      if (!now_) {
        isNews = leave(line) || isNews;
        continue;
      }
      isNews = see(line.seen, now, now_.state) || isNews;
      badge(line.element.querySelector("[data-part=state]"), now_);
    }
    const shown = this.#section.querySelector("[data-part=shown]");
    shown.textContent = of > lines.length ? interpolate(gettext("%(shown)s of %(all)s targets"), { shown: lines.length, all: of }, true) : "";
    this.#askFor(told);
    if (isNews) this.#asking.news();
  }

  // Where there are too many to tell, a calm target may be told for being busy; the page chooses those by name.
  #askFor({ lines, of }) {
    for (const { id, state } of lines) {
      if (this.#lines.has(String(id)) || (state === "closed" && of > lines.length)) continue;
      this.#asking.unknown(`target ${id}, ${state}`);
    }
  }

  /** What the books tell by now, and the strips of targets that had none: from the same section of the page anew. */
  learn(changes, fresh) {
    this.#changes = { ...this.#changes, ...changes };
    this.#takeStrips(fresh);
    if (this.#told) this.take(...this.#told);
    this.#askAgain();
  }

  // The books may be written only after the page was asked for what they tell.
  #askAgain() {
    for (const [id, line] of this.#lines) {
      for (const change of unexplained(this.#changes[id] ?? [], line.seen)) {
        change.answers = (change.answers ?? 0) + 1;
        if (change.answers < MOST_ANSWERS) this.#asking.news();
      }
    }
  }

  #takeStrips(fresh) {
    const list = this.#section.querySelector("[data-part=eventful]");
    if (!list) {
      this.#section.replaceChildren(...fresh.childNodes);
      this.#addAll();
      return;
    }
    for (const element of fresh.querySelectorAll("[data-target]")) {
      if (this.#lines.has(element.dataset.target)) continue;
      list.append(element);
      this.#add(element);
    }
  }

  draw(now) {
    for (const [id, line] of this.#lines) {
      line.shown = pieces(this.#changes[id] ?? [], line.seen, now);
      drawStrip(line, now);
    }
    this.#sort();
    this.#drawTable();
  }

  // What was closed all the time is folded away, so that the rest is seen at once.
  #sort() {
    const eventful = this.#section.querySelector("[data-part=eventful]");
    const calm = this.#section.querySelector(".calm");
    if (!calm) return;
    const folded = calm.querySelector(".strips");
    for (const { element, shown } of this.#lines.values()) {
      const list = shown.every(({ state }) => state === "closed") ? folded : eventful;
      if (element.parentElement !== list) list.append(element);
    }
    const count = folded.childElementCount;
    calm.hidden = !count;
    const words = ngettext("%s target, all the time", "%s targets, all the time", count);
    calm.querySelector("[data-part=calm]").textContent = interpolate(words, [count]);
  }

  #say(target) {
    if (target.matches(".piece")) this.#section.querySelector("#strip-said").textContent = target.getAttribute("aria-label");
  }

  #drawTable() {
    const details = this.#section.querySelector(".more");
    if (!details?.open) return;
    const all = [...this.#lines.values()].flatMap((line) => line.shown.map((piece) => ({ ...piece, name: nameOf(line) })));
    all.sort((one, other) => other.from - one.from);
    const rows = all.map((piece) => [sinceOf(piece), piece.name, STATES[piece.state].word(), lasting(piece), why(piece)]);
    const wanted = JSON.stringify(rows);
    if (details.dataset.shown === wanted) return;
    details.dataset.shown = wanted;
    details.querySelector("tbody").replaceChildren(...rows.map(tableRow));
  }
}

const nameOf = ({ element }) => element.querySelector(".strip-name").textContent.trim().replace(/\s+/g, " ");

const tableRow = (texts) => {
  const row = document.createElement("tr");
  row.append(...texts.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
  return row;
};

const badge = (element, { state, held, breakers }) => {
  const { word, badge: kind } = STATES[state];
  const processes = breakers.reduce((sum, each) => sum + each, 0);
  const count = breakers[ORDER.indexOf(state)];
  const words = count < processes ? interpolate(gettext("%(state)s in %(some)s of %(all)s"), { state: word(), some: count, all: processes }, true) : word();
  const text = held ? interpolate(gettext("%s, held by hand"), [words]) : words;
  if (element.textContent === text) return;
  [element.textContent, element.className] = [text, `badge ${kind}`];
};

// One that was not closed and is told of no more: it is calm among too many, or switched off. Whether that is new.
const leave = ({ element, seen }) => {
  const state = element.querySelector("[data-part=state]");
  if (state.textContent === "–" || (seen.at(-1)?.state ?? "closed") === "closed") return false;
  [state.textContent, state.className] = ["–", "badge"];
  return true;
};

// The pieces stay the same elements while they grow, so that a focus is not lost.
const drawStrip = (line, now) => {
  const wanted = new Map(line.shown.map((piece) => [`${piece.since}${piece.state}`, piece]));
  for (const [key, element] of line.pieces) if (!wanted.has(key)) { element.remove(); line.pieces.delete(key); }
  let before = null;
  for (const [key, piece] of wanted) {
    if (!line.pieces.has(key)) line.pieces.set(key, pieceElement(piece));
    const element = line.pieces.get(key);
    place(element, piece, now);
    if ((before ? before.nextSibling : line.strip.firstChild) !== element) line.strip.insertBefore(element, before ? before.nextSibling : line.strip.firstChild);
    before = element;
  }
  const entry = line.strip.querySelector(".piece[tabindex='0']");
  if (!entry && before) before.tabIndex = 0;
};

const pieceElement = ({ state }) => {
  const element = document.createElement("span");
  element.className = `piece piece-${state}`;
  element.setAttribute("role", "img");
  element.tabIndex = -1;
  element.append(Object.assign(document.createElement("span"), { textContent: STATES[state].word() }));
  return element;
};

const place = (element, piece, now) => {
  const first = now - WINDOW_S;
  element.style.left = `${((piece.from - first) / WINDOW_S) * 100}%`;
  element.style.width = `${((piece.to - piece.from) / WINDOW_S) * 100}%`;
  const said = [`${STATES[piece.state].word()} ${sinceOf(piece)}`, why(piece)].filter(Boolean).join(": ");
  if (element.getAttribute("aria-label") !== said) element.setAttribute("aria-label", said);
};

const sinceOf = ({ since }) => (since === null
  ? gettext("for 15 minutes or longer")
  : interpolate(gettext("since %s"), [timeWithSeconds(since)]));

const lasting = ({ from, to, since }) => `${since !== null && since < from ? "≥ " : ""}${duration((to - from) * 1_000_000)}`;

const why = ({ cause, byHand, timeOver }) => {
  if (timeOver) return gettext("its open time is over, one attempt may go through");
  if (byHand && !cause) return gettext("by hand");
  return byHand ? interpolate(gettext("by hand: %s"), [cause]) : cause;
};

const STEPS = {
  ArrowLeft: (piece) => piece.previousSibling,
  ArrowRight: (piece) => piece.nextSibling,
  ArrowUp: (piece, section) => beside(piece, section, -1),
  ArrowDown: (piece, section) => beside(piece, section, 1),
};

// Left and right along a strip, up and down between strips.
const walk = (event) => {
  const piece = event.target.closest?.(".piece");
  const next = piece && STEPS[event.key]?.(piece, event.currentTarget);
  if (!next) return;
  event.preventDefault();
  if (next.parentElement === piece.parentElement) [piece.tabIndex, next.tabIndex] = [-1, 0];
  next.focus();
};

/** Where one enters the strip above or below; strips that are folded away are stepped over. */
const beside = (piece, section, by) => {
  const strips = [...section.querySelectorAll(".strip")].filter((strip) => !strip.closest("details:not([open])"));
  return strips[strips.indexOf(piece.parentElement) + by]?.querySelector(".piece[tabindex='0']");
};
