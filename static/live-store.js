// What the page knows: the last 16 minutes by model name, a fixed amount of memory however long it stays open.

export const WINDOW_S = 900;
export const TRAILING_S = 60;
export const STEP_S = 5; // a point every 5 s keeps the lines calm; the newest second is always drawn
const YOUNG_SPANS_S = [120, 300]; // so that a first call is not a speck at the edge of an empty quarter of an hour
const KEPT_S = WINDOW_S + TRAILING_S;
export const LATEST_KEPT = 50;

// The order of a row, as `dashboard/frames.py` sends it.
const COUNTS = [
  "calls", "answered", "rejected", "failed", "truncated", "hung_up", "abandoned", "refused",
  "input_tokens", "output_tokens", "cost_nanos", "simulated", "unpriced",
];
const PERCENTILES = [
  "latency_p50", "latency_p95", "latency_p99", "first_token_p50", "first_token_p95", "first_token_p99",
];
const COLUMN = new Map([...COUNTS, ...PERCENTILES].map((name, at) => [name, at]));

/** One row a second, in a ring. A second without a row counts zero and has no percentile. */
export class Series {
  #rows = new Float64Array(KEPT_S * COLUMN.size);
  #seconds = new Float64Array(KEPT_S);

  copy() {
    const copy = new Series();
    copy.#rows.set(this.#rows);
    copy.#seconds.set(this.#seconds);
    return copy;
  }

  set(second, row) {
    const slot = second % KEPT_S;
    this.#seconds[slot] = second;
    for (let column = 0; column < COLUMN.size; column++) {
      this.#rows[slot * COLUMN.size + column] = row[column] ?? NaN;
    }
  }

  at(second, name) {
    const slot = second % KEPT_S;
    const column = COLUMN.get(name);
    if (this.#seconds[slot] !== second) return column < COUNTS.length ? 0 : NaN;
    return this.#rows[slot * COLUMN.size + column];
  }

  /** The sum of a count over the `span` seconds that end with `second`. */
  sum(name, second, span) {
    const column = COLUMN.get(name);
    let total = 0;
    for (let each = second - span + 1; each <= second; each++) {
      const slot = each % KEPT_S;
      if (this.#seconds[slot] === each) total += this.#rows[slot * COLUMN.size + column];
    }
    return total;
  }
}

// Calls under way, as `gateway/glance.py` counts them: in flight, then queued.
export const PRIORITIES = ["urgent", "normal", "batch"];
const UNDER_WAY = 2 * PRIORITIES.length;

/** How many calls were under way at the end of each second, in a ring. A second without a row had none. */
export class UnderWay {
  #counts = new Uint32Array(KEPT_S * UNDER_WAY);
  #seconds = new Float64Array(KEPT_S);
  #from = Infinity;

  copy() {
    const copy = new UnderWay();
    copy.#counts.set(this.#counts);
    copy.#seconds.set(this.#seconds);
    copy.#from = this.#from;
    return copy;
  }

  /** Nothing is known of seconds before this one; null: of none yet. */
  knownFrom(second) {
    this.#from = second ?? Infinity;
  }

  set(second, counts) {
    const slot = second % KEPT_S;
    this.#seconds[slot] = second;
    this.#counts.set(counts, slot * UNDER_WAY);
  }

  at(second, place) {
    if (second < this.#from) return NaN;
    const slot = second % KEPT_S;
    return this.#seconds[slot] === second ? this.#counts[slot * UNDER_WAY + place] : 0;
  }

  /** The most of the `span` seconds that end with `second`; NaN where none of them is known. */
  most(second, place, span) {
    let found = NaN;
    for (let each = second - span + 1; each <= second; each++) {
      const count = this.at(each, place);
      if (!(count <= found)) found = Number.isNaN(count) ? found : count;
    }
    return found;
  }
}

export class Store {
  run = "";
  lastId = 0;
  total = new Series();
  underWay = new UnderWay();
  routes = new Map();
  #lastSeen = new Map();
  #refused = [];
  #calls = new Map();
  #oldest = Infinity;

  /** How many seconds the charts show: the whole window as soon as there is something that old. */
  span(now) {
    return YOUNG_SPANS_S.find((span) => now - this.#oldest < span * 0.9) ?? WINDOW_S;
  }

  /** A copy as of now, which stays as it is whatever comes: the rings here go on and forget. */
  frozen() {
    const copy = new Store();
    [copy.lastId, copy.#oldest] = [this.lastId, this.#oldest];
    [copy.total, copy.underWay] = [this.total.copy(), this.underWay.copy()];
    for (const [name, series] of this.routes) copy.routes.set(name, series.copy());
    [copy.#calls, copy.#refused] = [new Map(this.#calls), [...this.#refused]];
    return copy;
  }

  /** Take in a snapshot or a frame. What was there before is not counted twice. */
  take(message) {
    if (message.kind === "waiting") return;
    if (message.kind === "snapshot") this.#takeSnapshot(message);
    else if (message.id > this.lastId) this.#takeFrame(message);
  }

  #takeSnapshot({ run, id, full, frames, calls, under_way_from: from }) {
    if (full) this.#forgetAll();
    this.underWay.knownFrom(from);
    this.run = run;
    for (const frame of frames) if (frame.id > this.lastId) this.#takeRows(frame);
    this.#takeCalls(calls);
    this.#moveTo(id);
  }

  #takeFrame({ id, frame, calls, under_way_from: from }) {
    this.underWay.knownFrom(from);
    if (frame) this.#takeRows(frame);
    this.#takeCalls(calls);
    this.#moveTo(id);
  }

  #takeRows({ id, routes, total, refused, under_way: underWay }) {
    this.total.set(id, total);
    if (underWay) this.underWay.set(id, underWay);
    this.#oldest = Math.min(this.#oldest, id);
    for (const [name, row] of Object.entries(routes)) {
      if (!this.routes.has(name)) this.routes.set(name, new Series());
      this.routes.get(name).set(id, row);
      this.#lastSeen.set(name, id);
    }
    for (const [code, count] of Object.entries(refused)) this.#refused.push({ id, code, count });
  }

  #takeCalls(calls) {
    for (const call of calls) this.#calls.set(call.id, call);
    const surplus = this.#calls.size - LATEST_KEPT;
    for (const id of [...this.#calls.keys()].slice(0, Math.max(0, surplus))) this.#calls.delete(id);
  }

  #moveTo(id) {
    this.lastId = Math.max(this.lastId, id);
    for (const [name, seen] of this.#lastSeen) {
      if (seen > id - KEPT_S) continue;
      this.#lastSeen.delete(name);
      this.routes.delete(name);
    }
    while (this.#refused.length && this.#refused[0].id <= id - WINDOW_S) this.#refused.shift();
  }

  #forgetAll() {
    this.lastId = 0;
    this.#oldest = Infinity;
    this.total = new Series();
    this.underWay = new UnderWay();
    this.routes.clear();
    this.#lastSeen.clear();
    this.#refused = [];
    this.#calls.clear();
  }

  /** Whether a call is in flight or queued at the newest second. */
  get isUnderWay() {
    return Array.from({ length: UNDER_WAY }, (_, place) => this.underWay.at(this.lastId, place)).some((count) => count > 0);
  }

  /** The newest first. */
  get calls() {
    return [...this.#calls.values()].reverse();
  }

  /** Refused calls of the window by error code, the most frequent first. */
  get refusals() {
    const codes = new Map();
    for (const { code, count } of this.#refused) codes.set(code, (codes.get(code) ?? 0) + count);
    return [...codes].sort((a, b) => b[1] - a[1]);
  }
}

/** Failed and truncated calls of those that ended in the trailing minute; NaN where none did. */
export const errorRate = (series, second) => {
  const ended = series.sum("calls", second, TRAILING_S);
  const wrong = series.sum("failed", second, TRAILING_S) + series.sum("truncated", second, TRAILING_S);
  return ended ? wrong / ended : NaN;
};
