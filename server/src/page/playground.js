// The playground: a conversation with the model, streamed.

import { ask, events } from "./server.js";
import { Answer, element, watch } from "./tokens.js";

const ALTERNATIVES = 5;
const NUMBER = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i;

const find = (id) => document.getElementById(id);
const [turns, told, error] = [find("turns"), find("told"), find("error")];
const [form, question, system] = [find("ask"), find("question"), find("system")];
const [send, stop, clear] = [find("send"), find("stop"), find("clear")];
const settings = ["temperature", "max-tokens", "seed"].map(find);

let conversation = [];
let running = null;

/** Lets people ask. `refused` hears of what the server refuses. */
export function begin(refused) {
  watch(turns);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running && question.value.trim()) answer(question.value).catch(refused);
  });
  for (const field of [question, system]) field.addEventListener("keydown", submitOnEnter);
  stop.addEventListener("click", () => running?.abort());
  clear.addEventListener("click", () => {
    running?.abort();
    conversation = [];
    turns.replaceChildren();
    error.textContent = told.textContent = "";
    question.focus();
  });
}

function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
}

/** What is asked, as JSON. Numbers go as they were typed: a seed may be longer than a float, and
    what is wrong the server tells best. */
function body(messages) {
  const asked = { messages, stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: ALTERNATIVES };
  const typed = settings
    .map((field) => [field.name, field.value.trim()])
    .filter(([, text]) => text)
    .map(([name, text]) => `,"${name}":${NUMBER.test(text) ? text : JSON.stringify(text)}`);
  return JSON.stringify(asked).slice(0, -1) + typed.join("") + "}";
}

/** Asks a question in the conversation so far, and shows the answer as it comes. */
async function answer(text) {
  const own = (running = new AbortController());
  const course = { began: performance.now(), first: 0, usage: null, end: "stopped" };
  const messages = [...conversation, { role: "user", content: text }];
  const before = system.value.trim() ? [{ role: "system", content: system.value }] : [];
  question.value = error.textContent = "";
  busy(true);
  const turn = shown(text);
  const shownAnswer = new Answer(turn.answer);
  try {
    const response = await ask("v1/chat/completions", body([...before, ...messages]), own.signal);
    for await (const event of events(response)) {
      course.usage = event.usage ?? course.usage;
      const choice = event.choices[0];
      if (!choice) continue;
      const entries = choice.logprobs?.content ?? [];
      if (entries.length) course.first ||= performance.now();
      course.end = choice.finish_reason ?? course.end;
      follow(() => shownAnswer.take(choice.delta?.content ?? "", entries));
    }
  } catch (why) {
    if (why.name === "AbortError") return;
    error.textContent = why.message;
    course.end = "broken off";
    if (!shownAnswer.text) {
      turn.whole.remove();
      question.value ||= text;
    }
    throw why;
  } finally {
    // A conversation that was cleared meanwhile is not gone on with.
    if (turn.whole.isConnected && shownAnswer.text) {
      conversation = [...messages, { role: "assistant", content: shownAnswer.text }];
    }
    follow(() => (turn.course.textContent = words(course)));
    turn.answer.removeAttribute("aria-busy");
    told.textContent = turn.whole.isConnected ? `${shownAnswer.text} (${course.end})` : "";
    if (running === own) running = null;
    busy(Boolean(running));
  }
}

/** A question on the page, with the place of its answer. */
function shown(text) {
  find("hint")?.remove();
  const turn = {
    whole: element("article"),
    answer: element("div", "", "answer"),
    course: element("p", "", "course"),
  };
  turn.answer.setAttribute("role", "group");
  turn.answer.setAttribute("aria-label", "Answer, token by token");
  turn.answer.setAttribute("aria-busy", "true");
  turn.whole.append(element("p", text, "question"), turn.answer, turn.course);
  follow(() => turns.append(turn.whole));
  return turn;
}

/** Changes the conversation, and keeps its end in sight where it was. */
function follow(change) {
  const atEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 40;
  change();
  if (atEnd) turns.scrollTop = turns.scrollHeight;
}

/** What an answer took, in words. */
function words({ began, first, usage, end }) {
  const now = performance.now();
  const parts = [end];
  if (first) parts.push(`first token after ${Math.round(first - began)} ms`);
  if (usage) {
    const { prompt_tokens: prompt, completion_tokens: tokens, prompt_tokens_details: details } = usage;
    if (tokens > 1) parts.push(`${tokens} tokens, ${Math.round((tokens - 1) / ((now - first) / 1000))} a second`);
    parts.push(`${details?.cached_tokens ?? 0} of ${prompt} prompt tokens from pages`);
  }
  return parts.join(" · ");
}

function busy(is) {
  const left = document.activeElement === (is ? send : stop);
  [send.disabled, stop.disabled] = [is, !is];
  // Whoever pressed a button that has gone goes on with the other.
  if (left) (is ? stop : question).focus();
}
