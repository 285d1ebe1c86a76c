// The page's API key: asked for with the first call, kept in this module's memory and nowhere else.

import { CallFailed } from "./playground-call.js";

const SPARE_S = 5 * 60; // with less left than this, another is made

export const keyFrom = (address, csrfToken) => {
  let made = null;

  const make = async () => {
    const response = await fetch(address, { method: "POST", headers: { "X-CSRFToken": csrfToken, Accept: "application/json" } }).catch(() => {
      throw new CallFailed(gettext("No key could be made: the pages did not answer."), { code: "no_key" });
    });
    if (response.redirected) throw new CallFailed(gettext("You are signed out. Reload the page to sign in again."), { code: "signed_out" });
    const isJson = (response.headers.get("Content-Type") ?? "").startsWith("application/json");
    if (!isJson) throw new CallFailed(gettext("No key could be made. Reload the page to try again."), { code: "no_key", status: response.status });
    const told = await response.json();
    if (!response.ok) throw new CallFailed(told.message, { code: "no_key", status: response.status });
    return { text: told.api_key, endsAt: Date.now() + (told.lasts_s - SPARE_S) * 1000 };
  };

  // Two calls at once wait for the same key: making one revokes the one before.
  return {
    current: () => {
      if (made === null || made.endsAt <= Date.now()) {
        const asked = make();
        made = { endsAt: Infinity, asked };
        asked.then(({ endsAt }) => (made.asked === asked ? (made.endsAt = endsAt) : null), () => (made = null));
      }
      return made.asked.then(({ text }) => text);
    },
    /** It was refused: the next call gets another, unless that was made already. */
    forget: async (text) => {
      if (made !== null && (await made.asked).text === text) made = null;
    },
  };
};
