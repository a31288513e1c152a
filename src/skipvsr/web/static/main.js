// The page: what belongs to the person comes from the server, which is told of every wish.

import { call, listen } from "./api.js";
import { bytes, codecName, clock, colourWords, containerName, duration, el, fill, percent, soundWords } from "./format.js";
import { Opener } from "./open.js";
import { isFinished, QueueView } from "./queue.js";
import { Settings } from "./settings.js";
import { Stage } from "./stage.js";

const get = (id) => document.querySelector(id);
let sources = [];
let jobs = [];
let chosen = null;
let shown = null;

const settings = new Settings(get(".panel"), () => stage.changed());
const stage = new Stage({ settings, onPreview: showTakes, onProblem: complain, say });
const opener = new Opener({ onOpen: (source) => { remember(source); choose(source.id); }, onProblem: complain });
const queue = new QueueView(get("#jobs"), { act, play });

function complain(words) {
  const note = el("div", { className: "problem" }, el("span", {}, words), el("button", { type: "button", ariaLabel: "Dismiss", onclick: () => note.remove() }, "×"));
  get("#problems").append(note);
}

function say(words) {
  get("#live").textContent = words;
}

// Sources.

function remember(source) {
  if (!sources.some(({ id }) => id === source.id)) sources.push(source);
  showSources();
}

function choose(id) {
  if (chosen === id) return;
  chosen = id;
  const source = sources.find((each) => each.id === id) ?? null;
  showSources();
  if (source) {
    settings.setFound(source.found);
    showFound(source);
  }
  showTakes(null);
  stage.open(source);
}

function showSources() {
  get("#welcome").hidden = sources.length > 0;
  get("#work").hidden = !sources.length;
  get("#sources").replaceChildren(...sources.map((source) => {
    const select = el("button", { type: "button", className: "source", ariaPressed: String(source.id === chosen), onclick: () => choose(source.id) },
      el("img", { src: `/api/sources/${source.id}/thumbnails/4`, alt: "" }), el("span", { className: "name" }, source.name),
      el("span", { className: "quiet" }, `${source.found.width} × ${source.found.height}, ${duration(source.found.seconds)}`));
    return el("li", {}, select, el("button", { type: "button", className: "icon", ariaLabel: `Close ${source.name}`, title: "Close", onclick: () => close(source) }, "×"));
  }));
}

async function close(source) {
  try {
    await call("DELETE", `/api/sources/${source.id}`);
    sources = sources.filter(({ id }) => id !== source.id);
    if (chosen === source.id) {
      chosen = null;
      choose(sources[0]?.id ?? null);
    }
    showSources();
    if (!sources.length) get("#welcome-choose").focus();
  } catch (error) {
    complain(error.message);
  }
}

function showFound(source) {
  const found = source.found;
  const rate = found.frame_rate ? `${Number(found.frame_rate.toFixed(3))} frames/s${found.variable_rate ? ", variable" : ""}` : "unknown";
  const length = found.seconds === null ? "unknown" : `${clock(found.seconds, 1)}${found.frames ? `, ${found.frames.toLocaleString("en")} frames` : ""}`;
  const size = [`${found.width} × ${found.height}`];
  if (found.interlaced) size.push("interlaced");
  if (found.rotation) size.push(`turned by ${found.rotation}°`);
  if (!found.square_pixels) size.push("pixels are not square");
  fill(get("#found"), [
    ["Video", size.join(", ")],
    ["Length", length],
    ["Rate", rate],
    ["Codec", `${codecName(found.codec)} in ${containerName(found.container)}`],
    ["Colour", colourWords(found)],
    ["Sound", soundWords(found.sounds)],
    ["Subtitles", found.subtitles ? String(found.subtitles) : "none"],
    ["File", bytes(found.bytes)],
  ]);
}

function showTakes(facts) {
  settings.setChoice(facts);
  shown = facts;
  get("#measure").hidden = !facts || facts.measured || facts.film_seconds === null;
  const list = get("#takes");
  list.classList.toggle("stale", !facts);
  if (!facts) {
    if (!list.children.length) fill(list, [["Whole video", "…"], ["File", "…"], ["A frame here", "…"], ["Blocks that ran", "…"]]);
    return;
  }
  const share = facts.tiles && facts.active_ratio > 0 ? percent(facts.active_ratio) : "none";
  const depth = facts.active_ratio > 0 ? `${percent(facts.depth_range[0])} to ${percent(facts.depth_range[1])} in ${facts.tiles} tiles` : "no network";
  fill(list, [
    ["Whole video", `about ${duration(facts.film_seconds)}`, `${facts.output_size.join(" × ")}, ${codecName(facts.codec)}`],
    ["File", facts.film_bytes === null ? "unknown" : `about ${bytes(facts.film_bytes)}`, facts.result_name],
    ["A frame here", `${facts.seconds_per_frame < 10 ? facts.seconds_per_frame.toFixed(2) : facts.seconds_per_frame.toFixed(0)} s`, facts.busy ? "measured; this machine is busy" : facts.measured ? "measured on whole frames" : "measured now"],
    ["Blocks that ran", share, depth],
  ]);
  get("#command").textContent = facts.command;
}

/** What the whole film takes, as the command line measures it. */
async function measure() {
  const [button, facts] = [get("#measure"), shown];
  button.disabled = true;
  button.textContent = "Measuring…";
  try {
    const found = await call("POST", "/api/estimates", { source: chosen, settings: settings.values });
    if (shown === facts) showTakes({ ...facts, film_seconds: found.seconds, film_bytes: found.file_bytes, seconds_per_frame: found.seconds_per_frame, busy: found.busy, measured: true });
  } catch (error) {
    if (error.status !== 409) complain(error.message);
  } finally {
    button.disabled = false;
    button.textContent = "Measure it";
  }
}

// Jobs.

async function act(job, action) {
  try {
    if (action === "remove") await call("DELETE", `/api/jobs/${job.id}`);
    else await call("POST", `/api/jobs/${job.id}/${action}`);
  } catch (error) {
    complain(error.message);
  }
}

function play(job) {
  const source = sources.find(({ id }) => id === job.source) ?? null;
  if (source && chosen !== source.id) choose(source.id);
  if (!source && !sources.length) {
    window.location.assign(`/media/${job.id}`);
    return;
  }
  stage.play(job, source);
}

async function start() {
  const button = get("#start");
  button.disabled = true;
  try {
    const known = new Set(jobs.map(({ id }) => id));
    const job = await call("POST", "/api/jobs", { source: chosen, settings: settings.values });
    say(known.has(job.id) ? `${job.name} is in the queue already` : `${job.name} is in the queue`);
    get("#queue").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  } catch (error) {
    complain(error.message);
  } finally {
    button.disabled = false;
  }
}

function update(state) {
  const before = new Map(jobs.map((job) => [job.id, job.state]));
  jobs = state.jobs;
  const ids = (list) => list.map(({ id }) => id).join();
  if (ids(state.sources) !== ids(sources)) {
    sources = state.sources;
    if (!sources.some(({ id }) => id === chosen)) {
      chosen = null;
      choose(sources[0]?.id ?? null);
    }
    showSources();
  }
  for (const job of jobs) {
    if (job.kind === "film" && before.has(job.id) && before.get(job.id) !== job.state && isFinished(job)) say(`${job.name}: ${job.state}`);
  }
  const films = jobs.filter((job) => job.kind === "film");
  get("#queue").hidden = !films.length;
  const running = films.find((job) => job.state === "running");
  const { frames_done: done, frames_total: total } = running?.progress ?? {};
  document.title = running && total ? `${percent(done / total)} · SkipVSR` : "SkipVSR";
  queue.show(jobs);
  stage.setJobs(jobs);
}

get("#start").addEventListener("click", start);
get("#measure").addEventListener("click", measure);
get("#copy-command").addEventListener("click", async () => {
  const command = get("#command");
  try {
    await navigator.clipboard.writeText(command.textContent);
    say("Copied");
    get("#copy-command").textContent = "Copied";
    setTimeout(() => { get("#copy-command").textContent = "Copy"; }, 1500);
  } catch {
    getSelection().selectAllChildren(command);
    say("Select and copy it with the keyboard");
  }
});

try {
  const state = await call("GET", "/api/state");
  settings.setOffers(state.models, state.presets);
  stage.thumbnails = state.thumbnails;
  opener.limit = state.upload_bytes;
  get("#browse").hidden = get("#welcome-browse").hidden = !state.browse;
  update(state);
  listen(update, (reachable) => { get("#offline").hidden = reachable; });
  document.documentElement.dataset.ready = "true";
} catch (error) {
  complain(error.message);
}
