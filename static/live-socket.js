// The socket: comes back by itself, and asks for what it missed.

const SILENT_MS = 5000; // a frame comes every second, so silence means that the line is dead
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 2500;
const RIGHTS_CHANGED = 4403;

const isThere = async () => {
  const answer = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(LONGEST_WAIT_MS) }).catch(() => null);
  return answer !== null && ![502, 503, 504].includes(answer.status); // a proxy's words for a server that is away
};

export class Feed {
  #address;
  #listener;
  #failures = 0;
  #socket = null;
  #retry = 0;
  #watchdog = 0;

  /** `address()` is asked before each try; `listener` has `message(value)`, `state(name)` and `refused()`. */
  constructor(address, listener) {
    this.#address = address;
    this.#listener = listener;
    addEventListener("online", () => this.#connectNow());
    addEventListener("pageshow", (event) => event.persisted && this.#connectNow());
  }

  connect() {
    clearTimeout(this.#retry);
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#hear(data));
    socket.addEventListener("close", ({ code }) => socket === this.#socket && this.#lost(code));
    this.#watch();
  }

  #connectNow() {
    if (!this.#socket) this.connect();
  }

  #hear(data) {
    this.#failures = 0;
    this.#watch();
    this.#listener.message(JSON.parse(data));
    this.#listener.state("live");
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      const silent = this.#socket;
      this.#lost(1006);
      silent.close();
    }, SILENT_MS);
  }

  #lost(code) {
    this.#socket = null;
    clearTimeout(this.#watchdog);
    this.#listener.state("reconnecting");
    if (code === RIGHTS_CHANGED) this.#listener.refused();
    this.#wait();
  }

  #wait() {
    this.#failures += 1;
    if (this.#failures % 3 === 2) this.#askWhy();
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.#failures - 1));
    // Jittered, so that a restart does not bring every page back in the same moment.
    this.#retry = setTimeout(() => this.#tryAgain(), wait * (0.5 + Math.random() / 2));
  }

  // Chromium holds a page's sockets back for up to 5 s when many of them have failed. So after a second failure
  // the server is first asked in another way whether it is there.
  async #tryAgain() {
    const mayConnect = this.#failures < 2 || await isThere();
    if (this.#socket) return; // the network said meanwhile that it is back
    if (mayConnect) this.connect();
    else this.#wait();
  }

  // A browser does not tell why a socket was refused, so the page itself is asked.
  async #askWhy() {
    try {
      const answer = await fetch(location.href, { method: "HEAD", redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect" || answer.status === 404) this.#listener.refused();
    } catch {
      /* The server is away; the next try will tell. */
    }
  }
}
