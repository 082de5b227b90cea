// Begins the page: asks how the server is, twice a second while somebody looks.

import { Charts } from "./charts.js";
import { begin } from "./playground.js";
import { ask, useKey } from "./server.js";

const EVERY_MS = 500;

const find = (id) => document.getElementById(id);
const [state, key] = [find("state"), find("key")];
const charts = new Charts(find("charts"));
let introduced = false;

/** Says how the server is, where that has changed. */
function say(words, kind) {
  if (state.textContent !== words) state.textContent = words;
  state.dataset.state = kind;
}

/** Sees to what a refusal asks of whoever sits here. */
function refused(why) {
  if (why.status === undefined) throw why;
  if (why.status === 401) {
    key.hidden = false;
    say("needs a key", "waits");
  } else if (why.code === "loading") {
    say("loading the model", "waits");
  } else if (why.status === 0) {
    say("does not answer", "gone");
  }
}

/** Names what is served. */
async function introduce() {
  const [models, version] = await Promise.all(["v1/models", "version"].map(async (path) => (await ask(path)).json()));
  const { id, max_model_len: context } = models.data[0];
  find("model").textContent = `${id} · ${context.toLocaleString("en")} tokens of context · version ${version.version}`;
  document.title = `${id} · Pagewise`;
  introduced = true;
}

async function look() {
  try {
    charts.take(await (await ask("debug/metrics")).json());
    if (!introduced) await introduce();
    key.hidden = true;
    say("ready", "ready");
  } catch (why) {
    refused(why);
  } finally {
    setTimeout(watched, EVERY_MS);
  }
}

/** Looks now, or when somebody does. */
function watched() {
  if (document.hidden) document.addEventListener("visibilitychange", watched, { once: true });
  else look();
}

key.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key-text").value);
  find("question").focus();
});
begin(refused);
look();
