// Server-sent events, as OpenAI's interface sends them: the data of each, whole, however the bytes were cut.

const EVENT_END = /\r\n\r\n|\n\n|\r\r/;

/** The `data` of one event; null for a comment, or an event without any. */
export const dataOf = (event) => {
  const lines = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:"));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
};

/** Yields as they come. Throws what the stream throws, also AbortError. */
export async function* eventsOf(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const events = (rest + (value ?? "")).split(EVENT_END);
      rest = done ? "" : events.pop();
      for (const event of events) {
        const data = dataOf(event);
        if (data !== null) yield data;
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {}); // it failed already, and said so above
  }
}
