// What the page lacks and the server may know by now. The page is asked for anew, once at a time for all that is wanted.

const FIRST_WAIT_MS = 700; // what was seen is on the books a moment later
const LONGEST_WAIT_MS = 60_000;
const DOUBLED_AT_MOST = 10;

export class Asking {
  #ask;
  #take;
  #unknown = new Set();
  #answered = new Set();
  #isWanted = false;
  #timer = 0;
  #failures = 0;

  /** `ask()` promises an answer, null where there is none, and never fails; `take(answer)` makes use of it. */
  constructor(ask, take) {
    this.#ask = ask;
    this.#take = take;
  }

  /** Ask soon: there is news. */
  news() {
    this.#isWanted = true;
    this.#start();
  }

  /** Ask soon for something that has no place here, but never again once it was answered: the answer may not have it. */
  unknown(name) {
    if (this.#unknown.has(name) || this.#answered.has(name)) return;
    this.#unknown.add(name);
    this.news();
  }

  // Not every page asks at once, and a server that does not answer is asked ever more rarely.
  #start() {
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures, DOUBLED_AT_MOST));
    this.#timer ||= setTimeout(() => this.#go(), wait * (1 + Math.random()));
  }

  async #go() {
    const names = [...this.#unknown];
    this.#isWanted = false;
    const answer = await this.#ask();
    this.#timer = 0;
    this.#failures = answer ? 0 : this.#failures + 1;
    if (answer) this.#answer(names, answer);
    if (this.#isWanted || !answer) this.news();
  }

  #answer(names, answer) {
    for (const name of names) {
      this.#unknown.delete(name);
      this.#answered.add(name);
    }
    this.#take(answer);
  }
}
