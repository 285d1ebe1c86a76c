"use strict";

// Runs before the body is drawn, so that a chosen theme never flashes.
(() => {
  const THEMES = ["auto", "light", "dark"];
  const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };

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
      button.querySelector("[data-theme-name]").textContent = NAMES[theme];
      button.setAttribute("aria-label", `Theme: ${NAMES[theme]}`);
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
      say(button, "Copied");
    } catch {
      if (source.select) source.select();
      else getSelection().selectAllChildren(source);
      say(button, "Selected");
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

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-theme-toggle]").forEach(startThemeToggle);
    for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
    // The answer to a form that must not be sent twice: reloading goes elsewhere.
    const elsewhere = document.querySelector("[data-reload-goes-to]");
    if (elsewhere) history.replaceState(null, "", elsewhere.dataset.reloadGoesTo);
  });
})();
