// What a breaker was, piece by piece: from what the books tell and what was seen since. Pure.

import { WINDOW_S } from "./live-store.js";

const second = (us) => (us === null ? null : us / 1_000_000);

/** The pieces of a strip that ends `now`: {state, from, to, since, cause, byHand}, oldest first.
 *
 *  `changes` as `dashboard/breaker_history.py` tells them, oldest first; `seen` is what frames said since:
 *  [{at, state}]. `since` is null where nobody knows when it began. */
export const pieces = (changes, seen, now) => {
  const first = now - WINDOW_S;
  const told = marksOf(changes);
  const news = unexplained(changes, seen, told).map((each) => ({ ...each, cause: "", byHand: false }));
  const until = news[0]?.at ?? Infinity; // from there on, what was seen is truer than what was to be expected
  const marks = [...told.filter(({ at, timeOver }) => !timeOver || at < until), ...news];
  const begun = changes.length ? changes[0].before : seen[0]?.state;
  if (!begun) return [];
  const all = [{ at: null, state: begun, cause: "" }, ...marks];
  return all
    .map(({ at, ...rest }, place) => ({
      ...rest, since: at, from: Math.max(first, at ?? first), to: Math.min(now, all[place + 1]?.at ?? now),
    }))
    .filter(({ from, to }) => to > from);
};

// An open breaker lets a probe through when its time is over, though nobody may have asked yet.
const marksOf = (changes) => changes.flatMap(({ at_us: at, after, until_us: until, cause, by_hand: byHand }, place) => {
  const mark = { at: second(at), state: after, cause, byHand };
  const next = second(changes[place + 1]?.at_us ?? null) ?? Infinity;
  if (after !== "open" || until === null || second(until) >= next) return [mark];
  return [mark, { at: second(until), state: "half_open", cause: "", byHand: false, timeOver: true }];
});

/** Of what was seen, the changes that are not on the books yet, or are another process's. */
export const unexplained = (changes, seen, told = marksOf(changes)) => {
  const last = changes.length ? second(changes.at(-1).at_us) : -Infinity;
  const later = seen.slice(changes.length ? 0 : 1).filter(({ at }) => at > last + 1);
  const known = told.findLast(({ at }) => at <= later[0]?.at)?.state;
  return later.slice(later[0]?.state === known ? 1 : 0);
};

/** Take in a state that was seen at a second. Returns whether it is another than before. Forgets what has left the strip. */
export const see = (seen, at, state) => {
  while (seen.length > 1 && seen[1].at < at - WINDOW_S) seen.shift();
  if (seen.at(-1)?.state === state) return false;
  seen.push({ at, state });
  return seen.length > 1;
};
