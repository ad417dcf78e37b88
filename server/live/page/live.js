// SPDX-License-Identifier: Apache-2.0
// Asks for /status.json and places what it says. Sentences and figures are made by the server (server/live/view.py); here are clock times
// in the reader's zone, durations that tick, and curves. Text is set as text, never as markup.

const EVERY_MS = 2000;
const WHEN_HIDDEN_MS = 15000;
const PATIENCE_MS = 5000;
const MARKS = { answered: "✓", asked: "…", refused: "✕", failed: "✕", silent: "✕", paused: "✕", left: "✕" };
const SVG = "http://www.w3.org/2000/svg";

const at = (id) => document.getElementById(id);
let skew = 0; // the server's clock less ours, in seconds
let lastAnswer = null; // when we last had one, by our clock
let facts = null;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const placed = new Map(); // what stands where, so that only what changed is set anew: a selection under the reader's hand stays

function fill(id, data, make) {
  const told = JSON.stringify(data);
  if (placed.get(id) === told) return;
  placed.set(id, told);
  at(id).replaceChildren(...make());
}

function say(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

// Times.

const now = () => Date.now() / 1000 + skew;

function clock(seconds) {
  const when = new Date((seconds - skew) * 1000);
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const sameDay = when.toDateString() === new Date().toDateString();
  return sameDay ? time : `${when.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

function ago(seconds) {
  return element("span", { className: "ago", title: clock(seconds), "data-since": seconds }, `${duration(now() - seconds)} ago`);
}

function tick() {
  for (const place of document.querySelectorAll(".ago")) place.textContent = `${duration(now() - Number(place.dataset.since))} ago`;
  for (const place of document.querySelectorAll(".open-for")) place.textContent = duration(now() - Number(place.dataset.since));
  if (facts !== null) freshness();
}

function freshness() {
  const run = facts.run;
  if (run === null) return say("freshness", clock(facts.at));
  say("freshness", facts.over ? `ended, as of ${clock(run.written)}` : `as of ${clock(run.written)}`);
}

// Parts of the page.

function show(found) {
  facts = found;
  skew = found.at - Date.now() / 1000;
  const headline = at("headline");
  headline.className = `said ${found.tone}`;
  fill("headline", found.headline, () => [element("p", {}, found.headline)]);
  say("gist", found.gist);
  at("main").hidden = found.run === null && found.processes.length === 0;
  at("programs").hidden = found.processes.length === 0;
  fill("program-list", found.processes, () => found.processes.map(program));
  for (const id of ["problems", "sites", "curves", "facts", "progress"]) at(id).hidden = found.run === null;
  if (found.run === null) at("round").hidden = true;
  else showRun(found.run);
  freshness();
}

function showRun(run) {
  document.title = `${run.committed} of ${run.rounds} · ${run.name}`;
  say("name", run.name);
  say("purpose", run.purpose);
  say("program", `fedward ${run.fedward} · live`);
  const progress = at("progress");
  progress.setAttribute("aria-valuemax", run.rounds);
  progress.setAttribute("aria-valuenow", run.committed);
  progress.firstElementChild.style.width = `${(100 * run.committed) / run.rounds}%`;
  fill("facts", run.facts, () => run.facts.map(fact));
  say("round-title", run.round > run.committed ? `Round ${run.round}` : run.round === 0 ? "Before the first round" : `Round ${run.round}, committed`);
  at("round").hidden = run.sums.every((sum) => sum.steps.every((step) => step.state === "ahead"));
  say("deadline", run.deadline === null ? "" : `The open step ends at ${clock(run.deadline)} at the latest; earlier, when everybody who is needed has answered.`);
  fill("sums", [run.sums, run.open_since], () => run.sums.map((sum) => showSum(sum, run)));
  at("problems").hidden = run.problems.length === 0;
  fill("problem-list", run.problems, () => run.problems.map(problem));
  say("sites-title", `${run.sites.length} sites`);
  fill("site-rows", run.sites, () => run.sites.map(site));
  curves(run);
  const starts = run.starts === 1 ? "once" : `${run.starts} times`;
  say("footer", `Plan ${run.plan}, session ${run.session}. Begun ${clock(run.begun)}; the coordinator was started ${starts}. ` +
    "What is shown is known to the coordinator anyway or was released under the plan's promise; no site's own figures are.");
}

function program(found) {
  return element("li", {}, element("b", {}, found.name), element("span", { "data-state": found.state }, found.words));
}

function fact(found) {
  const small = found.small === "" ? null : element("small", { className: found.alarm ? "red" : "" }, found.small);
  return element("div", {}, element("dt", {}, found.term), element("dd", {}, found.value, small));
}

function showSum(sum, run) {
  const steps = sum.steps.map((step) => {
    const parts = [element("b", {}, step.word)];
    if (step.state === "done") parts.push(element("small", {}, `${step.answered} of ${step.asked}, ${step.took}`));
    if (step.state === "open") {
      const since = element("span", { className: "open-for", "data-since": run.open_since }, duration(now() - run.open_since));
      parts.push(element("small", {}, `${step.answered} of ${step.asked}, `, since));
    }
    const made = element("li", { className: step.state, title: step.what }, ...parts);
    if (step.state === "open") made.setAttribute("aria-current", "step");
    return made;
  });
  const heading = run.sums.length === 1 ? null : element("b", {}, sum.what[0].toUpperCase() + sum.what.slice(1));
  return element("div", { className: "sum" }, heading, element("ol", { className: "steps", "aria-label": `Steps of the ${sum.what}` }, ...steps));
}

function problem(found) {
  const often = found.times > 1 ? `, and ${found.times - 1} more lately` : "";
  const when = element("p", { className: "when" }, `${found.past ? "Earlier: round" : "Round"} ${found.round}${often}, `, ago(found.at), " · ", element("code", {}, found.code));
  const what = element("p", {}, element("span", { className: "what" }, `${found.who} ${found.what}. `), element("span", { className: "todo" }, found.todo));
  return element("li", { className: found.past ? "past" : "" }, what, when);
}

function site(found) {
  const code = found.code === "" ? null : element("code", { title: found.todo }, ` ${found.code}`);
  const marks = found.steps.map((step) => {
    const made = element("span", { className: `mark ${step.state}`, title: `${step.word}: ${step.state}` }, MARKS[step.state] ?? "·");
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `${step.word}: ${step.state === "ahead" ? "not asked" : step.state}`);
    return made;
  });
  return element(
    "tr",
    { className: found.state.replaceAll(" ", "-") },
    element("th", { scope: "row" }, found.name),
    element("td", { className: "left words" }, found.words, code),
    element("td", { className: "left marks" }, ...marks),
    element("td", { className: "since", "data-label": "heard" }, found.seen === null ? "never" : ago(found.seen)),
    element("td", { "data-label": "rounds" }, String(found.rounds)),
    element("td", { "data-label": "sent" }, found.sent),
  );
}

// Curves.

const WIDTH = 460;
const HEIGHT = 190;
const EDGE = { left: 46, right: 56, top: 10, bottom: 24 };

function curves(run) {
  const rounds = run.history;
  const judged = run.judged.filter((each) => each.auc !== null);
  at("curve-auc").hidden = judged.length === 0;
  draw("curve-auc", judged.map((each) => ({ x: each.after_round, y: each.auc.value, low: each.auc.low, high: each.auc.high })), run, { top: 1, digits: 3, what: "AUC" });
  draw("curve-norm", rounds.map(([round, norm]) => ({ x: round, y: norm })), run, { digits: 3, what: "L2 norm of the mean update" });
  draw("curve-seconds", rounds.map(([round, , seconds]) => ({ x: round, y: seconds })), run, { digits: 1, what: "Seconds a round" });
  draw("curve-sites", rounds.map(([round, , , sites, missing]) => ({ x: round, y: sites, low: sites, high: sites + missing })), run, { digits: 0, what: "Sites in the sum" });
  at("curves").hidden = rounds.length === 0 && judged.length === 0;
  const described = run.described;
  if (described === null) say("described", "");
  else if (described.failure) say("described", `Training data: ${described.failure}.`);
  else {
    const classes = described.classes.map(([name, found]) => `${name} about ${Math.round(found.value)}`).join(", ");
    say("described", `Trained on about ${Math.round(described.units.value)} patients of all sites together (${Math.round(described.units.low)} to ${Math.round(described.units.high)})${classes ? `: ${classes}` : ""}. Noised counts.`);
  }
  const last = rounds.slice(-run.rounds_shown).reverse();
  fill("round-rows", last, () => last.map(roundRow));
}

function roundRow([round, norm, seconds, sites, missing, when]) {
  const texts = [String(round), clock(when), duration(seconds), String(sites), String(missing), norm.toPrecision(3)];
  return element("tr", {}, ...texts.map((text) => element("td", {}, text)));
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

function drawn(tag, attributes, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

function draw(id, points, run, { top = null, digits, what }) {
  const svg = at(id).querySelector("svg");
  if (points.length === 0) return;
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const values = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  const bottom = top === 1 ? Math.min(0.5, Math.floor(Math.min(...values) * 10) / 10) : 0;
  const roof = top ?? (Math.max(...values) * 1.08 || 1);
  const lastX = Math.max(run.rounds, points.at(-1).x, 1);
  const x = (value) => EDGE.left + ((WIDTH - EDGE.left - EDGE.right) * value) / lastX;
  const y = (value) => HEIGHT - EDGE.bottom - ((HEIGHT - EDGE.top - EDGE.bottom) * (value - bottom)) / (roof - bottom);
  const parts = [];
  const whole = digits === 0;
  for (const value of ticks(bottom, roof, 5).filter((each) => !whole || Number.isInteger(each))) {
    parts.push(drawn("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }));
    parts.push(drawn("text", { x: EDGE.left - 7, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  parts.push(drawn("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(bottom), y2: y(bottom) }));
  for (const value of ticks(0, lastX, 8).filter((each) => Number.isInteger(each))) parts.push(drawn("text", { x: x(value), y: HEIGHT - 7, "text-anchor": "middle" }, String(value)));
  if (points[0].low !== undefined) {
    const upper = points.map((point) => `${x(point.x)},${y(point.high)}`);
    const lower = points.map((point) => `${x(point.x)},${y(point.low)}`).reverse();
    parts.push(points.length > 1 ? drawn("polygon", { class: "band", points: [...upper, ...lower].join(" ") })
      : drawn("line", { class: "line", x1: x(points[0].x), x2: x(points[0].x), y1: y(points[0].low), y2: y(points[0].high) }));
  }
  parts.push(drawn("polyline", { class: "line", points: points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ") }));
  const last = points.at(-1);
  parts.push(drawn("circle", { class: "dot", cx: x(last.x), cy: y(last.y), r: 3.5 }));
  parts.push(drawn("text", { class: "last", x: x(last.x) + 7, y: y(last.y) + 4 }, last.y.toFixed(digits)));
  const told = `${what}: ${last.y.toFixed(digits)} after round ${last.x}; ${points[0].y.toFixed(digits)} after round ${points[0].x}.`;
  svg.setAttribute("aria-label", told);
  svg.replaceChildren(...parts);
}

// Asking.

function unreachable() {
  const place = at("unreachable");
  const since = lastAnswer === null ? "This page has had no answer yet." : `This page has had no answer since ${clock(lastAnswer + skew)}.`;
  const text = `${since} Either the coordinator's supervisor is stopped (fedward server start), or the way to it is broken, such as an ssh tunnel. It goes on asking; what stands below is old.`;
  if (place.textContent !== text) place.textContent = text;
  place.hidden = false;
  at("main").classList.add("stale");
  at("headline").classList.add("stale");
}

async function answer() {
  try {
    const reply = await fetch("status.json", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    return reply.ok ? await reply.json() : null;
  } catch {
    return null;
  }
}

async function ask() {
  const found = await answer();
  setTimeout(ask, document.hidden ? WHEN_HIDDEN_MS : EVERY_MS);
  if (found === null) return unreachable();
  lastAnswer = Date.now() / 1000;
  at("unreachable").hidden = true;
  at("main").classList.remove("stale");
  show(found);
}

setInterval(tick, 1000);
ask();
