// Work in small pieces, a frame each: done all at once it would keep the page from answering a hand.

export class Turns {
  #waiting = [];
  #next = [];
  #isRunning = false;

  /** Do these one after the other when what was begun is done, instead of what has not been begun:
   *  were it left half done, a slow page would never come to its last pieces. */
  take(pieces) {
    this.#next = [...pieces];
    if (!this.#isRunning) this.#wait();
  }

  #wait() {
    if (!this.#waiting.length) [this.#waiting, this.#next] = [this.#next, []];
    this.#isRunning = this.#waiting.length > 0;
    if (this.#isRunning) requestAnimationFrame(() => this.#doOne());
  }

  #doOne() {
    this.#waiting.shift()();
    this.#wait();
  }
}
