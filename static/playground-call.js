// One streamed call, from the request to its end, with what was measured on the way. Knows nothing of the page.

import { eventsOf } from "./playground-stream.js";

/** What went wrong, as a person can be told: a sentence, and what else is known. */
export class CallFailed extends Error {
  constructor(said, { code = "", status = 0, retryAfterS = null, callId = "" } = {}) {
    super(said);
    Object.assign(this, { code, status, retryAfterS, callId });
  }
}

const secondsOf = (text) => (text && /^\d+(\.\d+)?$/.test(text) ? Number(text) : null);
const idOf = (response) => response.headers.get("X-Request-Id") ?? "";

/** An answer that is no stream, as the error in OpenAI's shape that it should be. */
const refusalOf = async (response) => {
  const about = { status: response.status, retryAfterS: secondsOf(response.headers.get("Retry-After")), callId: idOf(response) };
  const body = await response.text();
  try {
    const { error } = JSON.parse(body);
    return new CallFailed(error.message, { ...about, code: error.code ?? error.type ?? "" });
  } catch (why) {
    if (!(why instanceof SyntaxError || why instanceof TypeError)) throw why;
    const said = gettext("What answers calls at this address is not the relay: it said %(status)s, and nothing that could be read.");
    return new CallFailed(interpolate(said, { status: response.status }, true), about);
  }
};

const isStream = (response) => response.ok && (response.headers.get("Content-Type") ?? "").startsWith("text/event-stream");

const send = async (address, apiKey, request, signal) => {
  try {
    return await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${apiKey}` },
      body: JSON.stringify(request),
      credentials: "omit", // the key alone says whose call it is
      referrerPolicy: "no-referrer",
      cache: "no-store",
      signal,
    });
  } catch (why) {
    if (why.name === "AbortError") throw why;
    throw new CallFailed(gettext("The relay did not answer. It may be restarting, or this computer is offline."), { code: "no_answer" });
  }
};

const ended = (data) => data === "[DONE]";

/** Takes one event in; throws CallFailed for the error that ends a stream which failed after it began. */
const take = (seen, data, now) => {
  const chunk = JSON.parse(data);
  if (chunk.error) throw new CallFailed(chunk.error.message, { code: chunk.error.code ?? chunk.error.type ?? "", callId: seen.callId });
  if (chunk.usage) seen.usage = chunk.usage;
  const [choice] = chunk.choices ?? [];
  if (!choice) return;
  const { content, refusal, reasoning_content: thought } = choice.delta ?? {};
  const text = content ?? refusal ?? "";
  if (text || thought) {
    seen.firstMs ??= now() - seen.startedAt;
    seen.pieces += 1;
  }
  seen.text += text;
  seen.finish = choice.finish_reason ?? seen.finish;
};

const facts = (response) => ({
  callId: idOf(response),
  target: response.headers.get("X-Penstock-Target") ?? "",
  attempts: response.headers.get("X-Penstock-Attempts") ?? "",
  overheadMs: secondsOf(response.headers.get("X-Penstock-Overhead-Ms")),
});

/** What is known of a call before anything came. Durations in milliseconds, moments as `now()` has them. */
export const unseen = (startedAt) => ({ startedAt, firstMs: null, totalMs: null, pieces: 0, text: "", usage: null, finish: "", callId: "", target: "", attempts: "", overheadMs: null });

/** Runs to the end, and tells `seen` after each event. Throws CallFailed, or AbortError where it was stopped. */
export const run = async ({ address, apiKey, request, signal, tell, now = () => performance.now() }) => {
  const seen = unseen(now());
  try {
    const response = await send(address, apiKey, request, signal);
    if (!isStream(response)) throw await refusalOf(response);
    tell(Object.assign(seen, facts(response)));
    let isWhole = false;
    for await (const data of eventsOf(response.body)) {
      if (ended(data)) {
        isWhole = true;
        break;
      }
      take(seen, data, now);
      tell(seen);
    }
    if (!isWhole) throw new CallFailed(gettext("The answer broke off before its end."), { code: "truncated", callId: seen.callId });
    return seen;
  } catch (why) {
    if (why instanceof CallFailed || why.name === "AbortError") throw why;
    throw new CallFailed(gettext("The answer broke off before its end."), { code: "truncated", callId: seen.callId });
  } finally {
    seen.totalMs = now() - seen.startedAt;
    tell(seen);
  }
};
