"use strict";

// Runs before the body is drawn, so that a chosen theme never flashes.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: () => gettext("Auto"), light: () => gettext("Light"), dark: () => gettext("Dark") };

  // Storage may be forbidden by the browser; the theme then lasts as long as the page.
  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const remember = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      /* see above */
    }
  };

  let theme = THEMES.includes(remembered()) ? remembered() : "auto";

  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("penstock:theme", { detail: theme }));
  };
  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme === "auto" && apply());

  const startThemeToggle = (button) => {
    const label = () => {
      button.querySelector("[data-theme-name]").textContent = NAMES[theme]();
      button.setAttribute("aria-label", interpolate(gettext("Theme: %s"), [NAMES[theme]()]));
    };
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      remember(theme);
      apply();
      label();
    });
    label();
    button.hidden = false;
  };

  const closeMenus = (except) => {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (menu !== except) menu.open = false;
    }
  };

  // On plain HTTP away from localhost a page has no clipboard; the text is then selected instead.
  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      say(button, gettext("Copied"));
    } catch {
      if (source.select) source.select();
      else getSelection().selectAllChildren(source);
      say(button, gettext("Selected"));
    }
  };
  const labels = new WeakMap();
  const say = (button, word) => {
    if (!labels.has(button)) labels.set(button, [...button.childNodes]);
    button.textContent = word;
    setTimeout(() => button.replaceChildren(...labels.get(button)), 2000);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    closeMenus(event.target.closest("details[data-menu]"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = document.querySelector("details[data-menu][open]");
    closeMenus();
    menu?.querySelector("summary").focus();
  });

  // A second click on a slow form is not a second wish.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button && !event.defaultPrevented) setTimeout(() => (button.disabled = true));
  });
  // The back button shows a kept page, whose buttons must work again.
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const button of document.querySelectorAll("button[type=submit]:disabled")) button.disabled = false;
  });

  // Partial updates. A region says that it is being fetched again, and says when that failed:
  // what it shows by then is older than the reader thinks.
  const regionOf = ({ detail }) => detail.target ?? detail.elt;
  document.addEventListener("htmx:beforeRequest", (event) => regionOf(event).setAttribute("aria-busy", "true"));
  document.addEventListener("htmx:afterRequest", (event) => {
    const region = regionOf(event);
    region.removeAttribute("aria-busy");
    if (event.detail.successful) region.querySelector(":scope > .refetch-failed")?.remove();
  });
  const showFailure = (event) => {
    const region = regionOf(event);
    const name = event.detail.xhr?.status === 403 ? "forbidden" : "error";
    const state = document.getElementById(`state-${name}`).content.cloneNode(true);
    const waiting = region.querySelector("[data-state=loading]");
    if (waiting) waiting.replaceWith(state);
    else if (!region.querySelector(":scope > .refetch-failed")) region.prepend(notice(state));
  };
  // What was there stays, so it only gets a line above it.
  const notice = (state) => {
    const line = document.createElement("p");
    line.className = "notice error refetch-failed";
    line.setAttribute("role", "alert");
    line.textContent = [...state.querySelectorAll("p")].map((each) => each.textContent.trim()).join(": ");
    return line;
  };
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) document.addEventListener(name, showFailure);
  // Signed out meanwhile: the sign-in is a page, not a part of one.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!new URL(event.detail.xhr.responseURL || location.href).pathname.startsWith("/accounts/login/")) return;
    if (location.pathname.startsWith("/accounts/login/")) return;
    event.detail.shouldSwap = false;
    location.reload();
  });

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-theme-toggle]").forEach(startThemeToggle);
    for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
    // The answer to a form that must not be sent twice: reloading goes elsewhere.
    const elsewhere = document.querySelector("[data-reload-goes-to]");
    if (elsewhere) history.replaceState(null, "", elsewhere.dataset.reloadGoesTo);
  });
})();
