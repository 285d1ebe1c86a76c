// Figures as people read them. A figure that is not known is a dash, never 0.

const NONE = "–";
const language = document.documentElement.lang || undefined; // the page's, which need not be the browser's
const zone = document.documentElement.dataset.zone; // the reader's own, which the page names
// Made when it is first needed, and once: each takes a phone milliseconds.
const lazily = (make) => {
  let made = null;
  return { format: (value) => (made ??= make()).format(value) };
};
const number = (options) => lazily(() => new Intl.NumberFormat(language, options));
// Where the browser does not know the zone, moments are in UTC and each says so.
const inZone = (options) => {
  try {
    return new Intl.DateTimeFormat(language, { ...options, timeZone: zone });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return new Intl.DateTimeFormat(language, { ...options, timeZone: "UTC", timeZoneName: "short" });
  }
};
const moments = (options) => lazily(() => inZone({ ...options, hourCycle: "h23" }));
const whole = number({ maximumFractionDigits: 0 });
const short = number({ notation: "compact", maximumSignificantDigits: 3 });
const twoDigits = number({ maximumFractionDigits: 2 });
const oneDigit = number({ maximumFractionDigits: 1 });
const clock = moments({ hour: "2-digit", minute: "2-digit" });
const clockWithSeconds = moments({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayAndClock = moments({ month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

export const count = (value) => (value >= 1e6 ? short : whole).format(value);

export const rate = (value) => {
  if (Number.isNaN(value)) return NONE;
  if (value >= 10_000) return short.format(value);
  return (value < 10 ? twoDigits : value < 100 ? oneDigit : whole).format(value);
};

export const percent = (value) => {
  if (Number.isNaN(value)) return NONE;
  return `${(value < 0.1 ? twoDigits : oneDigit).format(value * 100)}\u202f%`;
};

const durationWith = (seconds) => (us) => {
  if (us === null || Number.isNaN(us)) return NONE;
  if (us === 0) return "0";
  if (us < 1000) return `${whole.format(us)} µs`;
  if (us < 100_000) return `${oneDigit.format(us / 1000)} ms`;
  if (us < 1_000_000) return `${whole.format(us / 1000)} ms`;
  return `${seconds.format(us / 1_000_000)} s`;
};
export const duration = durationWith(number({ minimumFractionDigits: 2, maximumFractionDigits: 2 }));
export const durationTick = durationWith(twoDigits);

/** Nano-units of a currency; below one unit with three digits that mean something. */
export const moneyIn = (currency) => {
  const usual = new Intl.NumberFormat(language, { style: "currency", currency });
  const least = usual.resolvedOptions().maximumFractionDigits;
  const byDigits = new Map([[least, usual]]);
  const withDigits = (most) => {
    if (!byDigits.has(most)) byDigits.set(most, number({ style: "currency", currency, minimumFractionDigits: least, maximumFractionDigits: most }));
    return byDigits.get(most);
  };
  const digitsOf = (value) => Math.max(least, Math.min(9, 2 - Math.floor(Math.log10(value))));
  return (nanos) => {
    if (Number.isNaN(nanos)) return NONE;
    const value = nanos / 1e9;
    return withDigits(value === 0 || value >= 1 ? least : digitsOf(value)).format(value);
  };
};

export const time = (second) => clock.format(second * 1000);
export const timeWithSeconds = (second) => clockWithSeconds.format(second * 1000);
/** Of an ISO moment. */
export const dayAndTime = (at) => dayAndClock.format(new Date(at));
