// Work in small pieces, a frame each: done all at once it would keep the page from answering a hand.

export class Turns {
  #waiting = [];
  #isRunning = false;

  /** Do these one after the other, instead of what has not been done yet. */
  take(pieces) {
    this.#waiting = [...pieces];
    if (!this.#isRunning) this.#wait();
  }

  #wait() {
    this.#isRunning = this.#waiting.length > 0;
    if (this.#isRunning) requestAnimationFrame(() => this.#next());
  }

  #next() {
    this.#waiting.shift()?.();
    this.#wait();
  }
}
