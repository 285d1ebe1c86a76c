// The one second that all charts point at, by mouse, finger or keyboard, and the way to the calls behind it.

import { STEP_S, WINDOW_S } from "./live-store.js";

const KEYS = { ArrowLeft: -STEP_S, ArrowRight: STEP_S, PageUp: -60, PageDown: 60, Home: -Infinity, End: Infinity };

export class Cursor {
  second = null;
  #charts = [];
  #open;

  /** `open(chart, second, y)`: go to the calls behind a point; `y` in pixels, null: none is meant. */
  constructor(open) {
    this.#open = open;
  }

  add(chart) {
    this.#charts.push(chart);
    const { box } = chart;
    box.addEventListener("pointermove", (event) => this.#moveTo(chart.secondAt(event.offsetX)));
    box.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#moveTo(null));
    box.addEventListener("blur", () => this.#moveTo(null));
    box.addEventListener("keydown", (event) => this.#press(chart, event));
    let tapped = null;
    box.addEventListener("pointerdown", () => { tapped = this.second; });
    box.addEventListener("click", (event) => {
      const second = chart.secondAt(event.offsetX);
      // A finger cannot point without touching: the first tap shows, the second opens.
      const isMeant = event.pointerType !== "touch" || second === tapped;
      this.#moveTo(second);
      if (isMeant && second !== null) this.#open(chart, second, event.offsetY);
    });
  }

  /** After the charts were drawn anew. */
  redraw() {
    for (const chart of this.#charts) chart.point(this.second);
  }

  #moveTo(second) {
    if (second === this.second) return;
    this.second = second;
    this.redraw();
  }

  #press(chart, event) {
    if (event.key === "Escape") this.#moveTo(null);
    else if (event.key === "Enter" && this.second !== null) this.#open(chart, this.second, null);
    else if (event.key in KEYS) this.#step(chart, KEYS[event.key]);
    else return;
    event.preventDefault();
  }

  #step(chart, by) {
    const { first, last } = chart.shown;
    const start = this.second ?? last;
    const next = Math.floor((start + by) / STEP_S) * STEP_S;
    this.#moveTo(by === Infinity || next > last ? last : Math.max(first, by === -Infinity ? first : next));
    chart.tell(this.second);
  }
}

/** The address of the calls that ended in the `covers` seconds before a point; they began up to `latency_us` earlier. */
export const callsAddress = ({ team, route, second, covers, latency_us: latency }) => {
  const until = second + 1;
  const longest = Number.isFinite(latency) ? Math.min(Math.ceil(latency / 1e6), WINDOW_S) : 0;
  const asked = new URLSearchParams();
  if (team) asked.set("team", team);
  if (route) asked.set("route", route);
  asked.set("since", iso(until - covers - longest));
  asked.set("until", iso(until));
  return `/calls/?${asked}`;
};

const iso = (second) => new Date(second * 1000).toISOString().replace(".000", "");
