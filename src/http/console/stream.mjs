// The stream of a topic's events. It mends broken connections by itself, and finds out why the
// server refuses one.

import * as server from "./server.mjs";

/** Milliseconds until a stream that ended or was refused is asked for again. */
const AGAIN = 1_000;

/**
 * The place in a log that the id of a streamed event names: `41`, or `41@HISTORY` where the server
 * has histories. `id` is the text as it came.
 */
export function cursorOf(id) {
  const at = id.indexOf("@");
  return { seq: Number.parseInt(id, 10), history: at < 0 ? undefined : id.slice(at + 1), id };
}

/** Follows one topic at a time. */
export class Stream {
  #find;
  #onEvent;
  #onRefused;
  #topic = null;
  #source = null;
  #retry = null;
  /**
   * Counts what is followed, so that a late answer about another topic is not taken for one about
   * this.
   */
  #turn = 0;
  /** Where the stream resumes; null before the first place is known. */
  cursor = null;

  /**
   * `find` gives the place to begin at, as a promise, and is called before each connection; it may
   * return `cursor` itself. `onEvent` gets the text of each event. `onRefused` gets the problem of
   * a stream that is refused, or null where nobody can say why; it may set `cursor` to null.
   */
  constructor({ find, onEvent, onRefused }) {
    this.#find = find;
    this.#onEvent = onEvent;
    this.#onRefused = onRefused;
  }

  /** Follows this topic from its newest events on. */
  follow(topic) {
    this.close();
    this.#topic = topic;
    this.cursor = null;
    this.open();
  }

  /** Whether events come as they are stored. */
  get isLive() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  /** Ends the connection. The place stays. */
  close() {
    this.#turn += 1;
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  /** Connects again at the place where the stream ended. */
  async open() {
    this.close();
    if (this.#topic === null || document.hidden) return;
    const turn = this.#turn;
    const isCurrent = () => turn === this.#turn;
    try {
      const cursor = await this.#find();
      if (isCurrent()) this.#connect(cursor, isCurrent);
    } catch {
      if (isCurrent()) this.#again();
    }
  }

  /** The only place where a stream is opened. */
  #connect(cursor, isCurrent) {
    this.cursor = cursor;
    this.#source = server.follow(this.#topic, cursor);
    this.#source.onmessage = ({ lastEventId, data }) => {
      this.cursor = cursorOf(lastEventId);
      this.#onEvent(data);
    };
    this.#source.addEventListener("end", () => this.#again());
    this.#source.onerror = async () => {
      // The browser mends a broken connection. It gives up where the answer is no stream.
      if (!isCurrent() || this.#source.readyState !== EventSource.CLOSED) return;
      const problem = await server.refusalOf(this.#topic, this.cursor);
      if (!isCurrent()) return;
      this.#onRefused(problem);
      this.#again();
    };
  }

  #again() {
    this.close();
    this.#retry = setTimeout(() => this.open(), AGAIN);
  }
}
