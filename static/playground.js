// The playground: a talk with one model name or two, by calls to the relay at the page's own address.

import { Answer } from "./playground-answer.js";
import { CallFailed, run, unseen } from "./playground-call.js";
import { curl, node, python, startTabs } from "./playground-code.js";
import { keyFrom } from "./playground-key.js";
import { show } from "./playground-text.js";
import { duration } from "./live-format.js";

const by = (id) => document.getElementById(id);
const facts = JSON.parse(by("play-facts").textContent);
const form = by("play");
const talk = by("talk");
const message = by("message");
const LANES = [by("model"), by("with")];
const CALLS = "/v1/chat/completions";
const ON_THE_BOOKS_AFTER_MS = [1200, 1500, 2500, 5000, 10_000];
const RELAY_ELSEWHERE = "unknown_url";

const key = keyFrom(form.dataset.keyAddress, form.elements.csrfmiddlewaretoken.value);
const turns = []; // { role, text, element } or { answers: [Answer or null for each lane], element }
let running = null; // an AbortController

// What is asked for

const settings = () => {
  const temperature = by("temperature");
  const most = by("max_tokens");
  return {
    ...(temperature.value !== "" && temperature.validity.valid && { temperature: Number(temperature.value) }),
    ...(most.value !== "" && most.validity.valid && { max_tokens: Number(most.value) }),
  };
};

/** What was said so far, as this lane heard it: its own answers, and none of the other's. */
const messagesFor = (lane, until = turns.length) => {
  const system = by("system").value.trim();
  const said = turns.slice(0, until).flatMap((turn) => {
    if (turn.role) return [{ role: turn.role, content: turn.text }];
    const text = turn.answers[lane]?.seen?.text;
    return text ? [{ role: "assistant", content: text }] : [];
  });
  return [...(system ? [{ role: "system", content: system }] : []), ...said];
};

const requestOf = (lane, messages) => ({
  model: LANES[lane].value,
  messages,
  ...settings(),
  stream: true,
  stream_options: { include_usage: true },
});

const lanesChosen = () => LANES.flatMap((select, lane) => (select.value ? [lane] : []));

// The address and the code are in step with the form

const drawCode = () => {
  const messages = messagesFor(0);
  const draft = message.value.trim();
  while (!draft && messages.at(-1)?.role === "assistant") messages.pop(); // as it was asked last
  if (draft || !messages.some((each) => each.role !== "system")) messages.push({ role: "user", content: draft || gettext("Hello") });
  const request = requestOf(0, messages);
  for (const [name, written] of Object.entries({ curl, python, node })) by(`code-${name}`).textContent = written(facts.base_url, request);
};

const keepAddress = () => {
  const address = new URL(location.href);
  const values = { model: by("model").value, with: by("with").value, temperature: by("temperature").value, max_tokens: by("max_tokens").value };
  for (const [name, value] of Object.entries(values)) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  history.replaceState(history.state, "", address);
};

const drawPrices = () => {
  LANES.forEach((select, lane) => {
    document.querySelector(`[data-price-of="${lane}"]`).textContent = select.selectedOptions[0]?.dataset.price ?? "\u00a0";
  });
  by("to").textContent = lanesChosen().map((lane) => LANES[lane].value).join(" · ");
};

// The talk

const isAtEnd = () => talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
const toEnd = () => { talk.scrollTop = talk.scrollHeight; };
const say = (text) => { by("status").textContent = text; };

const add = (turn) => {
  by("nothing").hidden = true;
  turn.element.classList.add("play-turn");
  turns.push(turn);
  talk.append(turn.element);
  toEnd();
};

const remove = (turn) => {
  turns.splice(turns.indexOf(turn), 1);
  turn.element.remove();
  by("nothing").hidden = turns.length > 0;
  drawCode();
  message.focus();
};

const addSaid = (role, text) => {
  const element = document.createElement("div");
  element.append(by("play-said").content.cloneNode(true));
  element.firstElementChild.dataset.role = role;
  element.querySelector("[data-of=role]").textContent = role === "user" ? gettext("User") : gettext("Assistant");
  show(element.querySelector("[data-of=text]"), text);
  const turn = { role, text, element };
  element.querySelector("[data-of=remove]").addEventListener("click", () => running || remove(turn));
  add(turn);
};

const isRunning = (controller) => {
  running = controller;
  const hadFocus = [by("send"), by("stop")].includes(document.activeElement);
  by("send").hidden = by("clear").disabled = controller !== null;
  by("stop").hidden = controller === null;
  if (hadFocus) (controller ? by("stop") : message).focus();
};

// A call, drawn at most once a frame

const drawer = (answer) => {
  let latest = null;
  const draw = () => {
    const follows = isAtEnd();
    answer.draw(latest);
    latest = null;
    if (follows) toEnd();
  };
  return (seen) => {
    if (latest === null) requestAnimationFrame(draw);
    latest = seen;
  };
};

/** A key may have been revoked by another page of the same person: then once more, with another. */
const called = async (request, signal, tell) => {
  const apiKey = await key.current();
  try {
    return await run({ address: CALLS, apiKey, request, signal, tell });
  } catch (why) {
    if (why.status !== 401) throw why;
    await key.forget(apiKey);
    return run({ address: CALLS, apiKey: await key.current(), request, signal, tell });
  }
};

const booked = async (answer, callId) => {
  for (const wait of ON_THE_BOOKS_AFTER_MS) {
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    const response = await fetch(`/api/calls/${callId}`, { headers: { Accept: "application/json" } }).catch(() => null);
    if (response?.ok) {
      answer.booked(await response.json());
      return;
    }
  }
};

const sentence = (answer) => {
  const about = { name: answer.modelName, time: duration((answer.seen?.totalMs ?? 0) * 1000) };
  const words = {
    answered: gettext("%(name)s answered in %(time)s."),
    stopped: gettext("%(name)s was stopped after %(time)s."),
    failed: gettext("%(name)s failed."),
    refused: gettext("The call to %(name)s was refused."),
  };
  return interpolate(words[answer.state], about, true);
};

const elsewhere = (why) => new CallFailed(
  gettext("No calls are answered at this address: its pages run apart from the relay. The playground calls /v1/ at the address of the page, so that must lead to the relay."),
  { code: why.code, status: why.status },
);

const carry = async (answer, lane, messages, signal) => {
  const tell = drawer(answer);
  tell(unseen(performance.now()));
  try {
    await called(requestOf(lane, messages), signal, tell);
    answer.be("answered");
  } catch (why) {
    if (why.name === "AbortError") answer.be("stopped");
    else if (why instanceof CallFailed) answer.fail(why.code === RELAY_ELSEWHERE ? elsewhere(why) : why);
    else throw why;
  }
};

/** Asks every lane that has a model name. */
const ask = async () => {
  const controller = new AbortController();
  isRunning(controller);
  const element = document.createElement("div");
  element.className = "play-answers";
  const turn = { answers: LANES.map(() => null), element };
  const heard = LANES.map((_, lane) => messagesFor(lane));
  for (const lane of lanesChosen()) turn.answers[lane] = answerIn(turn, lane);
  element.append(...turn.answers.filter(Boolean).map((each) => each.element));
  add(turn);
  say(gettext("Answering…"));
  try {
    await Promise.all(turn.answers.map((answer, lane) => answer && carry(answer, lane, heard[lane], controller.signal)));
  } finally {
    isRunning(null);
  }
  await new Promise(requestAnimationFrame); // the last drawing
  finish(turn);
};

const answerIn = (turn, lane) => {
  const modelName = LANES[lane].value;
  const answer = new Answer(by("play-answer"), { modelName, price: facts.prices[modelName], currency: facts.currency, calls: form.dataset.calls });
  answer.part("again").addEventListener("click", () => {
    if (running) return;
    remove(turn);
    ask();
  });
  return answer;
};

const finish = (turn) => {
  const answers = turn.answers.filter(Boolean);
  for (const answer of answers) {
    const { callId } = answer.seen ?? {};
    if (!callId) continue;
    answer.link(callId);
    booked(answer, callId);
  }
  say(answers.map(sentence).join(" "));
  drawCode();
};

const send = () => {
  const text = message.value.trim();
  if (running || !form.reportValidity()) return;
  const role = by("role").value;
  if (!text && turns.at(-1)?.role !== "user") {
    message.focus();
    return;
  }
  if (text) addSaid(role, text);
  message.value = "";
  drawCode();
  if (role === "user") ask();
  else by("role").value = "user";
};

// What a person does

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
by("stop").addEventListener("click", () => running?.abort());
by("clear").addEventListener("click", () => {
  for (const turn of turns.splice(0)) turn.element.remove();
  by("nothing").hidden = false;
  say("");
  drawCode();
  message.focus();
});
by("team")?.addEventListener("change", () => by("play-team").requestSubmit());
form.addEventListener("input", drawCode);
form.addEventListener("change", () => {
  keepAddress();
  drawPrices();
  drawCode();
});

startTabs(document.querySelector("[role=tablist]"));
drawPrices();
drawCode();
by("send").disabled = false; // until now the form would have been sent as a form
