// Text with blocks of code in it, as elements. Only textContent is ever set: an answer is never markup.

/** Text between fences and code within them, in order; a fence that is open still is code to the end. */
export const blocksOf = (text) => {
  const blocks = [];
  let open = null;
  for (const line of text.split("\n")) {
    const fence = /^\s*(```+)\s*([\w+#.-]*)\s*$/.exec(line);
    if (fence && (open === null || fence[2] === "")) {
      open = open === null ? { kind: "pre", language: fence[2], lines: [] } : null;
      if (open) blocks.push(open);
    } else if (open) {
      open.lines.push(line);
    } else {
      if (blocks.at(-1)?.kind !== "p") blocks.push({ kind: "p", language: "", lines: [] });
      blocks.at(-1).lines.push(line);
    }
  }
  return blocks
    .map(({ kind, language, lines }) => ({ kind, language, text: kind === "p" ? lines.join("\n").trim() : lines.join("\n") }))
    .filter(({ kind, text: said }) => kind === "pre" || said !== "");
};

const elementFor = ({ kind, language }) => {
  const made = document.createElement(kind);
  if (kind === "p") return made;
  made.className = "code";
  made.tabIndex = 0; // a long line is scrolled by keyboard too
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", language || gettext("Code"));
  return made;
};

/** Shows the text in `place`; what is there already and has not changed is left alone. */
export const show = (place, text) => {
  const blocks = blocksOf(text);
  blocks.forEach((block, at) => {
    let element = place.children[at];
    if (element?.localName !== block.kind) {
      const made = elementFor(block);
      if (element) element.replaceWith(made);
      else place.append(made);
      element = made;
    }
    if (element.textContent !== block.text) element.textContent = block.text;
  });
  while (place.children.length > blocks.length) place.lastElementChild.remove();
};
