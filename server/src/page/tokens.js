// The tokens of an answer: each tinted by its doubt, and told in full when pointed at or focused.

const card = document.getElementById("token");
let shown = null;

/** A small element with text. */
export function element(name, text = "", classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = classes;
  return made;
}

/** A probability to three digits. */
function percent(logprob) {
  return `${Number((Math.exp(logprob) * 100).toPrecision(3))}%`;
}

/** A token as it can be seen: blanks have signs. */
function visible(token) {
  return token.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

/** Shows what is known of the token behind a span. */
function show(span) {
  const entry = span.entry;
  const taken = entry.top_logprobs.findIndex((other) => other.token === entry.token);
  const rows = entry.top_logprobs.map((other, at) => {
    const row = element("li", "", at === taken ? "taken" : "");
    row.append(element("code", visible(other.token)), element("span", percent(other.logprob)));
    row.style.setProperty("--share", Math.exp(other.logprob));
    return row;
  });
  const list = element("ol");
  list.append(...rows);
  const head = element("p", "", "head");
  head.append(element("code", visible(entry.token)), element("strong", percent(entry.logprob)));
  const score = element("p", `log-probability ${entry.logprob}`);
  const drawn = element("p", `drawn with ${percent(entry.processed_logprob)} at its temperature`);
  card.replaceChildren(head, score, drawn, list);
  card.hidden = false;
  place(span.getClientRects()[0] ?? span.getBoundingClientRect());
  shown?.removeAttribute("aria-describedby");
  shown = span;
  span.setAttribute("aria-describedby", card.id);
}

/** Puts the card below a token, or above it where there is no room, and within the window. */
function place(token) {
  const { width, height } = card.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const left = Math.max(8, Math.min(token.left, clientWidth - width - 8));
  const below = token.bottom + 6;
  const top = below + height > clientHeight ? Math.max(8, token.top - height - 6) : below;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${top + scrollY}px`;
}

function hide() {
  card.hidden = true;
  shown?.removeAttribute("aria-describedby");
  shown = null;
}

/** Watches a place where answers are: pointing, focus, and arrows from token to token. */
export function watch(place) {
  const told = (event) => event.target.closest?.(".token");
  place.addEventListener("pointerover", (event) => (told(event) ? show(told(event)) : hide()));
  place.addEventListener("pointerleave", hide);
  place.addEventListener("focusin", (event) => told(event) && show(told(event)));
  place.addEventListener("focusout", hide);
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  place.addEventListener("keydown", (event) => {
    const token = told(event);
    const all = token ? [...token.parentElement.querySelectorAll(".token")] : [];
    const at = all.indexOf(token);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (!all[next]) return;
    event.preventDefault();
    // One token of an answer is in the order of tabs: where one was last.
    token.tabIndex = -1;
    all[next].tabIndex = 0;
    all[next].focus();
  });
}

/** An answer on the page, to which tokens come. */
export class Answer {
  constructor(place) {
    this.place = place;
    this.text = "";
    this.placed = 0;
    this.decoder = new TextDecoder();
  }

  /** Takes what came: text, and the tokens that it is made of. */
  take(text, entries) {
    this.text += text;
    for (const entry of entries) {
      const piece = this.decoder.decode(Uint8Array.from(entry.bytes), { stream: true });
      // What is no part of the text, such as the end, is told all the same.
      const told = this.text.startsWith(piece, this.placed);
      if (told) this.placed += piece.length;
      const span = element("span", told ? piece : entry.token, told ? "token" : "token silent");
      span.entry = entry;
      span.tabIndex = this.place.childElementCount ? -1 : 0;
      span.style.setProperty("--doubt", 1 - Math.exp(entry.logprob));
      this.place.append(span);
    }
  }
}
