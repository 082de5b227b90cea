// Charts of the engine, from its counts as `/debug/metrics` tells them.

import { element } from "./tokens.js";

const SPAN_MS = 120_000;
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [240, 48];

/** A part as a percentage, where there is a whole. */
const share = (part, whole) => (whole > 0 ? (part / whole) * 100 : null);
const fill = (told) => (told.avg_batch_fill_pct / 100) * told.batches_processed;

// `values` tells the series of an interval, from the counts at its end and its beginning. A share
// is told of the whole span, for few intervals have much of it; all else of the last interval.
const CHARTS = [
  {
    title: "Tokens a second",
    series: ["answers", "prompts"],
    values: (now, before, seconds) => [
      (now.generated_tokens - before.generated_tokens) / seconds,
      (now.computed_prompt_tokens - before.computed_prompt_tokens) / seconds,
    ],
  },
  {
    title: "Batch fill",
    series: ["of a step's places"],
    share: true,
    values: (now, before) => [share(fill(now) - fill(before), now.batches_processed - before.batches_processed)],
  },
  {
    title: "Queue",
    series: ["running", "waiting"],
    values: (now) => [now.running_last, now.queue_depth_last],
  },
  {
    title: "Cache hits",
    series: ["of prompts' tokens"],
    share: true,
    values: (now, before) => {
      const found = now.prefix_hit_tokens - before.prefix_hit_tokens;
      return [share(found, found + now.computed_prompt_tokens - before.computed_prompt_tokens)];
    },
  },
  {
    title: "Pages",
    series: ["held", "kept for prefixes"],
    values: (now) => [now.pages_total - now.pages_free, now.pages_cached],
    note: (now) => `of ${now.pages_total.toLocaleString("en")}`,
  },
];

/** A number as it is told. */
function told(value, isShare) {
  if (value === null) return "–";
  return Math.round(value).toLocaleString("en") + (isShare ? "%" : "");
}

/** The least of 1, 2 and 5 times a power of ten that is as large. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((times) => times * power).find((top) => top >= value);
}

function drawing(name, classes) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", classes);
  return made;
}

/** One chart on the page. */
class Chart {
  constructor(plan, place) {
    this.plan = plan;
    this.figure = element("figure");
    this.top = element("span", "", "top");
    this.note = element("small");
    const caption = element("figcaption", plan.title);
    caption.append(" ", this.note);
    this.numbers = plan.series.map(() => element("dd", "–"));
    const list = element("dl");
    plan.series.forEach((name, at) => {
      const pair = element("div", "", `series-${at}`);
      pair.append(element("dt", name), this.numbers[at]);
      list.append(pair);
    });
    this.svg = drawing("svg", "chart");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("aria-hidden", "true");
    this.lines = plan.series.map((_, at) => drawing("path", `series-${at}`));
    this.svg.append(...this.lines);
    this.figure.append(caption, list, this.svg, this.top);
    place.append(this.figure);
  }

  /** Draws samples, the oldest first: a value of an interval is a level line, as long as it. */
  draw(samples) {
    const { values, share: isShare, note } = this.plan;
    const [first, last] = [samples[0], samples.at(-1)];
    const rows = samples.slice(1).map((now, at) => {
      const before = samples[at];
      const x = (when) => WIDTH * (1 - (last.at - when) / SPAN_MS);
      return { from: x(before.at), to: x(now.at), values: values(now.told, before.told, (now.at - before.at) / 1000) };
    });
    const most = Math.max(...rows.flatMap((row) => row.values));
    const top = isShare ? 100 : ceiling(most);
    const shown = isShare && first ? values(last.told, first.told) : rows.at(-1)?.values;
    this.numbers.forEach((number, at) => (number.textContent = told(shown?.[at] ?? null, isShare)));
    this.lines.forEach((line, at) => line.setAttribute("d", path(rows, at, top)));
    this.top.textContent = `0 to ${told(top, isShare)}`;
    this.note.textContent = note?.(last.told) ?? "";
  }
}

/** The line of a series; it breaks where there is nothing to tell. */
function path(rows, at, top) {
  let [line, drawn] = ["", false];
  for (const { from, to, values } of rows) {
    const value = values[at];
    if (value !== null) {
      const y = (HEIGHT - 1 - (HEIGHT - 2) * (value / top)).toFixed(2);
      line += `${drawn ? `V${y}` : `M${from.toFixed(2)} ${y}`}H${to.toFixed(2)}`;
    }
    drawn = value !== null;
  }
  return line;
}

/** All charts. */
export class Charts {
  constructor(place) {
    this.charts = CHARTS.map((plan) => new Chart(plan, place));
    this.samples = [];
  }

  /** Takes the counts as they are told now. */
  take(told) {
    const at = performance.now();
    // A server that was started anew counts from zero.
    if (told.batches_processed < (this.samples.at(-1)?.told.batches_processed ?? 0)) this.samples = [];
    this.samples = this.samples.filter((sample) => at - sample.at <= SPAN_MS);
    this.samples.push({ at, told });
    for (const chart of this.charts) chart.draw(this.samples);
  }
}
