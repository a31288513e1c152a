// The queue: a row for each job, kept in place so that focus and images stay while numbers change.

import { bytes, duration, el, percent } from "./format.js";

const STATES = { waiting: "Waiting", running: "Running", paused: "Paused", done: "Done", failed: "Failed", cancelled: "Cancelled" };

export class QueueView {
  /** `act(job, action)` for pause, resume, cancel, retry, up, down and remove; `play(job)`. */
  constructor(list, { act, play }) {
    this.list = list;
    this.act = act;
    this.play = play;
    this.rows = new Map();
  }

  show(jobs) {
    const films = jobs.filter((job) => job.kind === "film");
    for (const [id, row] of this.rows) {
      if (films.some((job) => job.id === id)) continue;
      row.node.remove();
      this.rows.delete(id);
    }
    const unfinished = films.filter((job) => !isFinished(job));
    films.forEach((job, index) => {
      if (!this.rows.has(job.id)) this.rows.set(job.id, this.#row(job));
      const row = this.rows.get(job.id);
      if (this.list.children[index] !== row.node) this.list.insertBefore(row.node, this.list.children[index] ?? null);
      this.#update(row, job, unfinished.indexOf(job), unfinished.length);
    });
  }

  #row(job) {
    const row = { job, buttons: {}, snapshotAt: null };
    const button = (action, words, className = "") => {
      row.buttons[action] = el("button", { type: "button", className, onclick: () => this.act(row.job, action), hidden: true }, words);
      row.buttons[action].setAttribute("aria-label", `${words === "↑" ? "Earlier" : words === "↓" ? "Later" : words}: ${job.name}`);
      return row.buttons[action];
    };
    row.image = el("img", { src: `/api/sources/${job.source}/thumbnails/8`, alt: "", className: "image", onerror: () => { row.image.hidden = true; } });
    row.state = el("span", { className: "state" });
    row.numbers = el("p", { className: "numbers-line" });
    row.message = el("p", { className: "message" });
    row.bar = el("progress", { max: 1, value: 0 });
    row.bar.setAttribute("aria-label", `Progress of ${job.name}`);
    row.link = el("a", { className: "button", href: `/media/${job.id}?download`, download: job.result_name, hidden: true }, "Download");
    row.watch = el("button", { type: "button", onclick: () => this.play(row.job), hidden: true }, "Play");
    row.watch.setAttribute("aria-label", `Play: ${job.result_name}`);
    row.node = el("li", { className: "job" },
      el("div", { className: "frame" }, row.image),
      el("div", { className: "words" },
        el("p", { className: "title" }, el("strong", {}, job.name), " ", (row.settings = el("span", { className: "quiet" })), row.state),
        row.bar, row.numbers, row.message),
      el("div", { className: "row buttons" }, button("up", "↑", "icon"), button("down", "↓", "icon"), button("pause", "Pause"), button("resume", "Resume"), button("cancel", "Cancel"),
        button("retry", "Try again"), row.watch, row.link, button("remove", "Remove")));
    return row;
  }

  #update(row, job, place, count) {
    row.job = job;
    row.node.dataset.state = job.state;
    row.state.textContent = STATES[job.state];
    row.settings.textContent = settingsWords(job.settings, job.report?.model);
    const { fraction, words } = progressOf(job);
    row.bar.hidden = isFinished(job);
    if (fraction === null && job.state === "running") row.bar.removeAttribute("value");
    else row.bar.value = fraction ?? 0;
    row.numbers.textContent = job.state === "done" ? doneWords(job) : words;
    row.message.textContent = job.message;
    row.message.hidden = !job.message;
    row.numbers.hidden = !row.numbers.textContent;
    const shown = {
      up: place > 0, down: place >= 0 && place < count - 1, pause: ["running", "waiting"].includes(job.state), resume: job.state === "paused",
      cancel: !isFinished(job), retry: ["failed", "cancelled"].includes(job.state), remove: isFinished(job),
    };
    for (const [action, visible] of Object.entries(shown)) keepFocus(row.buttons[action], visible, row.node);
    row.watch.hidden = row.link.hidden = job.state !== "done";
    if (job.snapshot && job.snapshot !== row.snapshotAt) {
      row.snapshotAt = job.snapshot;
      const image = new Image();
      image.onload = () => { row.image.src = image.src; row.image.hidden = false; };
      image.src = `/api/jobs/${job.id}/snapshot?${job.snapshot}`;
    }
  }
}

export const isFinished = (job) => ["done", "failed", "cancelled"].includes(job.state);

/** How far a job is: a fraction, or null where nobody knows, and in words. */
export function progressOf(job) {
  const { frames_done: done, frames_total: total, frames_per_second: speed, seconds_left: left, memory_bytes: memory, fraction: work } = job.progress;
  if (done === undefined) return { fraction: null, words: job.state === "running" ? "starting…" : "" };
  const fraction = work ?? (total ? Math.min(1, done / total) : null);
  const words = [fraction === null ? `${done} frames` : percent(fraction)];
  if (job.state === "running") {
    if (speed) words.push(speed >= 1 ? `${speed.toFixed(1)} frames/s` : `${(1 / speed).toFixed(1)} s a frame`);
    if (left !== null && left !== undefined) words.push(`${duration(left)} left`);
  }
  if (memory) words.push(`${bytes(memory)} of memory`);
  return { fraction, words: words.join(" · ") };
}

function doneWords(job) {
  const words = [];
  const report = job.report;
  if (report?.output_size) words.push(`${report.frames} frames, ${report.output_size.join(" × ")}`);
  if (job.result_bytes) words.push(bytes(job.result_bytes));
  if (report?.seconds) words.push(`in ${duration(report.seconds)}`);
  if (report && report.active_ratio < 1) words.push(`${percent(report.active_ratio)} of the blocks ran`);
  return words.join(" · ");
}

function settingsWords(settings, model) {
  const words = [model || settings.model];
  if (settings.scale) words.push(`× ${settings.scale}`);
  if (settings.budget) words.push(`${Math.round(100 * settings.budget)} %`);
  if (settings.height) words.push(`${settings.height} lines`);
  if (settings.encoding) words.push(settings.encoding);
  return words.join(", ");
}

/** Show or hide a button; focus that it had goes to another of its row, and is not lost. */
function keepFocus(button, visible, node) {
  if (button.hidden === !visible) return;
  const focused = document.activeElement === button;
  button.hidden = !visible;
  if (focused && !visible) requestAnimationFrame(() => node.querySelector(".buttons :not([hidden])")?.focus());
}
