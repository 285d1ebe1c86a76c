// Ticks what is left of overlaps. The server wrote the same words already, so that nothing jumps.

const DAY_S = 86_400, HOUR_S = 3600, MINUTE_S = 60;

const words = (leftS) => {
  const days = Math.floor(leftS / DAY_S), hours = Math.floor((leftS % DAY_S) / HOUR_S);
  const minutes = Math.floor((leftS % HOUR_S) / MINUTE_S), seconds = leftS % MINUTE_S;
  if (days) return interpolate(gettext("%(days)s d %(hours)s h"), { days, hours }, true);
  if (hours) return interpolate(gettext("%(hours)s h %(minutes)s min"), { hours, minutes }, true);
  if (minutes) return interpolate(gettext("%(minutes)s min %(seconds)s s"), { minutes, seconds }, true);
  return interpolate(gettext("%(seconds)s s"), { seconds }, true);
};

// The clock of the reader may be wrong: what counts is how much the server said is left.
const offsetMs = () => {
  const now = document.querySelector("[data-server-now]")?.dataset.serverNow;
  return now ? Date.parse(now) - performance.timeOrigin - performance.now() : 0;
};
const aheadMs = offsetMs();

const tick = () => {
  const nowMs = performance.timeOrigin + performance.now() + aheadMs;
  for (const each of document.querySelectorAll("[data-ends-at]")) {
    const text = words(Math.max(0, Math.floor((Date.parse(each.dateTime) - nowMs) / 1000)));
    if (each.textContent !== text) each.textContent = text;
  }
};
setInterval(tick, 1000);
