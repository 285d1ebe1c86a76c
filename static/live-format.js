// Figures as people read them. A figure that is not known is a dash, never 0.

const NONE = "–";
const number = (options) => new Intl.NumberFormat(undefined, options);
const whole = number({ maximumFractionDigits: 0 });
const short = number({ notation: "compact", maximumSignificantDigits: 3 });
const twoDigits = number({ maximumFractionDigits: 2 });
const oneDigit = number({ maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockWithSeconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

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
  const usual = number({ style: "currency", currency });
  const digits = usual.resolvedOptions().maximumFractionDigits;
  const small = (value) => number({
    style: "currency",
    currency,
    minimumFractionDigits: digits,
    maximumFractionDigits: Math.max(digits, Math.min(9, 2 - Math.floor(Math.log10(value)))),
  });
  return (nanos) => {
    if (Number.isNaN(nanos)) return NONE;
    const value = nanos / 1e9;
    return (value === 0 || value >= 1 ? usual : small(value)).format(value);
  };
};

export const time = (second) => clock.format(second * 1000);
export const timeWithSeconds = (second) => clockWithSeconds.format(second * 1000);
