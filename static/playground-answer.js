// One answer on the page: its text, its figures with where they come from, and what went wrong.

import { count, duration, moneyIn, rate } from "./live-format.js";
import { show } from "./playground-text.js";

const NONE = "–";
const MILLION = 1_000_000;
const SHORTEST_MS = 20; // in less, tokens a second say nothing
const us = (ms) => (ms === null ? null : ms * 1000);

/** Nano-units at the price, without tiers and other targets; null where there is no price. */
export const costOf = (price, input, output, cached = 0) => {
  if (price?.output === undefined) return null;
  return ((input - cached) * price.input + cached * price.cached + output * price.output) / MILLION + price.request;
};

const speedOf = ({ firstMs, totalMs }, output, soFarMs) => {
  const lasted = (totalMs ?? soFarMs) - firstMs;
  return firstMs === null || lasted < SHORTEST_MS ? NONE : rate(output / (lasted / 1000));
};

/** What the figures of a call are by now: each a text, and where it comes from. Pure but for the words. */
export const figuresOf = (seen, price, money, soFarMs) => {
  const measured = gettext("measured");
  const { usage } = seen;
  const output = usage?.completion_tokens ?? seen.pieces;
  const input = usage?.prompt_tokens ?? null;
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const nanos = usage ? costOf(price, input, output, cached) : null;
  const counted = usage ? gettext("reported") : gettext("pieces so far");
  const speed = speedOf(seen, output, soFarMs);
  return {
    first: [seen.firstMs === null ? NONE : duration(us(seen.firstMs)), seen.firstMs === null ? "" : measured],
    total: [duration(us(seen.totalMs ?? soFarMs)), seen.totalMs === null ? gettext("so far") : measured],
    speed: speed === NONE ? [NONE, ""] : [speed, measured],
    input: [input === null ? NONE : count(input), input === null ? "" : gettext("reported")],
    output: [seen.pieces || usage ? count(output) : NONE, seen.pieces || usage ? counted : ""],
    cost: nanos === null ? [NONE, ""] : [money(nanos), gettext("at the price")],
  };
};

const FINISHES = {
  length: () => gettext("It was cut at the most tokens out."),
  content_filter: () => gettext("The provider's filter cut it."),
};

const STATES = {
  running: () => [gettext("Answering"), ""],
  answered: () => [gettext("Answered"), "badge-good"],
  stopped: () => [gettext("Stopped"), "badge-warn"],
  failed: () => [gettext("Failed"), "badge-bad"],
  refused: () => [gettext("Refused"), "badge-bad"],
};

export class Answer {
  constructor(template, { modelName, price, currency, calls }) {
    this.element = template.content.firstElementChild.cloneNode(true);
    Object.assign(this, { modelName, price, calls, money: moneyIn(currency), seen: null, state: "running" });
    this.part("model").textContent = modelName;
    this.be("running");
  }

  part(name) {
    return this.element.querySelector(`[data-of="${name}"]`);
  }

  /** Still running, or how it ended. */
  be(state) {
    const [word, look] = STATES[state]();
    this.state = this.element.dataset.state = state;
    this.part("state").textContent = word;
    this.part("state").className = `badge ${look}`;
  }

  /** Shows what was seen by now. */
  draw(seen, now = performance.now()) {
    this.seen = seen;
    show(this.part("text"), seen.text);
    const figures = figuresOf(seen, this.price, this.money, now - seen.startedAt);
    for (const [name, [text, source]] of Object.entries(figures)) this.figure(name, text, source);
    this.drawFacts(seen);
  }

  figure(name, text, source) {
    this.part(name).textContent = text;
    this.part(`${name}-source`).textContent = source || "\u00a0";
  }

  drawFacts({ target, attempts, overheadMs, finish }) {
    this.part("target").textContent = target;
    const said = [];
    if (attempts) said.push(interpolate(ngettext("%(count)s attempt", "%(count)s attempts", Number(attempts)), { count: attempts }, true));
    if (overheadMs !== null) said.push(interpolate(gettext("%(time)s of the relay's own"), { time: duration(us(overheadMs)) }, true));
    this.part("facts").textContent = said.join(" · ") || "\u00a0";
    this.part("note").hidden = !(finish in FINISHES);
    this.part("note").textContent = FINISHES[finish]?.() ?? "";
  }

  /** The page that explains the call has it about a second later. */
  link(callId, words = gettext("Why it went as it did")) {
    if (!callId) return;
    const link = this.part("call");
    link.href = `${this.calls}${callId}/`;
    link.textContent = words;
    link.hidden = false;
  }

  fail({ message, code, status, retryAfterS, callId }) {
    this.be(this.seen?.text || status >= 500 || status === 0 ? "failed" : "refused");
    this.part("error").hidden = false;
    this.part("error-said").textContent = message;
    const more = code ? [code] : [];
    if (status) more.push(`HTTP ${status}`);
    if (retryAfterS !== null) more.push(interpolate(ngettext("can be tried again in %(count)s second", "can be tried again in %(count)s seconds", retryAfterS), { count: retryAfterS }, true));
    this.part("error-more").textContent = more.join(" · ");
    if (status !== 401) this.link(callId, this.state === "refused" ? gettext("Why it was refused") : undefined);
  }

  /** The books have it now, also the tokens of a call that did not come to its last chunk. */
  booked({ cost_nanos: nanos, unpriced, usage }) {
    if (unpriced) this.figure("cost", NONE, gettext("unpriced"));
    else this.figure("cost", this.money(nanos), gettext("booked"));
    if (this.seen.usage) return;
    const source = usage.basis === "reported" ? gettext("reported") : gettext("estimated");
    this.figure("input", count(usage.input_tokens), source);
    this.figure("output", count(usage.output_tokens), source);
  }
}
