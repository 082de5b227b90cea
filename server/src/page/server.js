// How the server is asked: with the key, and with errors in words.

const KEPT = "pagewise key";

/** Why there is no answer. */
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Keeps a key for what is asked from now on, in this tab. */
export function useKey(key) {
  sessionStorage.setItem(KEPT, key);
}

/** Asks by GET, or by POST where there is a body of JSON; the response, if it is a good one. */
export async function ask(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, { method: body ? "POST" : "GET", headers, body, signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer.", 0);
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Refused(error?.message ?? `The server answers ${response.status}.`, response.status, error?.code);
}

/** The events of a stream, as they come, up to its end. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refused("The answer broke off.", 0);
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(event.error.message, response.status, event.error.code);
      yield event;
    }
  }
}
