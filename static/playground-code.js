// The call as programs would make it. Pure: a request in, text out. The key is always $PENSTOCK_API_KEY.

const INDENT = "    ";
const lines = (...all) => all.filter((line) => line !== null).join("\n");

/** In single quotes of a shell, which know no escape. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const PYTHON = new Map([[true, "True"], [false, "False"], [null, "None"]]);
const pythonOf = (value) => {
  if (PYTHON.has(value)) return PYTHON.get(value);
  if (Array.isArray(value)) return `[${value.map(pythonOf).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${pythonOf(each)}`).join(", ")}}`;
};

const nodeOf = (value) => {
  if (Array.isArray(value)) return `[${value.map(nodeOf).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([name, each]) => `${name}: ${nodeOf(each)}`).join(", ")} }`;
};

/** One argument a line, and one message. */
const written = (request, indent, assign, of) =>
  Object.entries(request).map(([name, value]) => {
    if (name !== "messages") return `${indent}${name}${assign}${of(value)},`;
    const each = value.map((message) => `${indent}${indent}${of(message)},`);
    return [`${indent}messages${assign}[`, ...each, `${indent}],`].join("\n");
  }).join("\n");

export const curl = (baseUrl, request) => lines(
  `curl --no-buffer ${baseUrl}/chat/completions \\`,
  `  -H "Authorization: Bearer $PENSTOCK_API_KEY" \\`,
  `  -H "Content-Type: application/json" \\`,
  `  -d ${quoted(JSON.stringify(request, null, 2))}`,
);

export const python = (baseUrl, request) => lines(
  "import os",
  "",
  "from openai import OpenAI  # pip install openai",
  "",
  "client = OpenAI(",
  `${INDENT}base_url=${JSON.stringify(baseUrl)},`,
  `${INDENT}api_key=os.environ["PENSTOCK_API_KEY"],`,
  ")",
  "stream = client.chat.completions.create(",
  written(request, INDENT, "=", pythonOf),
  ")",
  "for chunk in stream:",
  `${INDENT}if chunk.choices:`,
  `${INDENT}${INDENT}print(chunk.choices[0].delta.content or "", end="", flush=True)`,
);

export const node = (baseUrl, request) => lines(
  `import OpenAI from "openai"; // npm install openai`,
  "",
  "const client = new OpenAI({",
  `  baseURL: ${JSON.stringify(baseUrl)},`,
  "  apiKey: process.env.PENSTOCK_API_KEY,",
  "});",
  "const stream = await client.chat.completions.create({",
  written(request, "  ", ": ", nodeOf),
  "});",
  "for await (const chunk of stream) {",
  `  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");`,
  "}",
);

/** In step with the page: `places` by language, and tabs that arrow keys walk through. */
export const startTabs = (list) => {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      const isChosen = tab === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !isChosen;
    }
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab);
  });
  const STEPS = { ArrowRight: 1, ArrowLeft: -1 };
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(event.target);
    const next = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : at + (STEPS[event.key] ?? NaN);
    if (at < 0 || Number.isNaN(next)) return;
    event.preventDefault();
    const tab = tabs[(next + tabs.length) % tabs.length];
    choose(tab);
    tab.focus();
  });
};
