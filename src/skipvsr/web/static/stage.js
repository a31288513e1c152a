// The stage: a frame upscaled at once, a short section, or a result, each under the wipe.

import { call } from "./api.js";
import { clock, el } from "./format.js";
import { Player } from "./player.js";
import { progressOf } from "./queue.js";
import { Strip } from "./strip.js";
import { Viewer } from "./viewer.js";

const PATIENCE_MS = 180;

export class Stage {
  /** `settings` are those of the page; `onPreview(facts)` with each frame; `onProblem`, `say`: words. */
  constructor({ settings, onPreview, onProblem, say }) {
    Object.assign(this, { settings, onPreview, onProblem, say });
    const get = (id) => document.querySelector(id);
    this.root = get("#viewer");
    this.viewer = new Viewer(this.root, (zoom) => { get("#zoom").textContent = `${Math.round(100 * zoom)} %`; });
    this.player = new Player({ play: get("#play"), seek: get("#seek"), clock: get("#clock"), box: get("#player") });
    this.viewer.togglePlay = () => this.player.toggle();
    this.strip = new Strip(get("#strip"), () => this.#moved());
    [this.busy, this.veil, this.veilWords, this.veilActions] = ["#busy", "#veil", "#veil-words", "#veil-actions"].map(get);
    [this.left, this.right, this.moment] = ["#tag-left", "#tag-right", "#moment"].map(get);
    [this.showDepth, this.depthLayer, this.legend] = ["#show-depth", "#depth", "#legend"].map(get);
    [this.sectionTools, this.sectionLength, this.depthChoice, this.modeResult] = ["#section-tools", "#section-length", "#depth-choice", "#mode-result"].map(get);
    [this.where, this.wherePart, this.whereImage, this.whereField, this.whole] = ["#where", "#where-part", "#where-image", "#where-field", "#whole"].map(get);
    this.mode = "frame";
    this.source = this.result = null;
    this.jobs = [];
    this.centre = [0.5, 0.5];
    this.moments = new Map();
    this.shownSection = null;
    this.copies = new Map();
    get("#zoom-in").addEventListener("click", () => this.viewer.setZoom(this.viewer.zoom * 1.5));
    get("#zoom-out").addEventListener("click", () => this.viewer.setZoom(this.viewer.zoom / 1.5));
    get("#zoom-fit").addEventListener("click", () => this.viewer.setZoom(1));
    get("#try-section").addEventListener("click", () => this.#trySection());
    this.sectionLength.addEventListener("change", () => this.#moved());
    this.showDepth.addEventListener("change", () => this.#drawDepth());
    for (const input of document.querySelectorAll("#modes input")) input.addEventListener("change", () => this.setMode(input.value));
    this.#listenToWhere();
  }

  /** Show a source; null: nothing. */
  open(source) {
    if (this.source) this.moments.set(this.source.id, this.strip.seconds);
    this.source = source;
    this.result = null;
    this.modeResult.hidden = true;
    if (!source) {
      this.player.close();
      return;
    }
    this.centre = [0.5, 0.5];
    this.shownSection = null;
    this.viewer.setAspect(source.found.aspect);
    this.viewer.setZoom(1);
    this.viewer.show(null, null);
    this.strip.open(source, this.thumbnails, this.moments.get(source.id) ?? (source.found.seconds ?? 0) / 2);
    this.setMode("frame");
  }

  setMode(mode) {
    this.mode = mode;
    for (const input of document.querySelectorAll("#modes input")) input.checked = input.value === mode;
    this.sectionTools.hidden = mode !== "section";
    this.depthChoice.hidden = mode !== "frame";
    this.player.close();
    this.shownSection = null;
    if (mode === "frame") this.viewer.show(null, null);
    this.showVeil(mode === "frame" && this.source ? "Upscaling this frame…" : null);
    this.#drawDepth();
    if (mode !== "result") {
      this.left.textContent = "Bicubic";
      this.right.textContent = "SkipVSR";
    }
    this.#moved();
  }

  /** The settings have changed. */
  changed() {
    if (this.mode === "frame") this.renew();
    else if (this.mode === "section") this.#showSection();
  }

  /** Play a finished job's result against its source. */
  play(job, source) {
    this.result = { job, source };
    this.modeResult.hidden = false;
    this.setMode("result");
    this.root.scrollIntoView({ block: "nearest" });
    this.root.focus({ preventScroll: true });
  }

  /** Something has changed on the server. */
  setJobs(jobs) {
    this.jobs = jobs;
    if (this.mode === "section" && this.source) this.#showSection();
    if (this.mode === "result" && this.result && !jobs.some((job) => job.id === this.result.job.id)) {
      this.result = null;
      this.modeResult.hidden = true;
      this.setMode("frame");
    } else if (this.mode === "result") this.#followCopies();
  }

  #moved() {
    this.moment.textContent = `${clock(this.strip.seconds)} of ${clock(this.strip.length)}`;
    this.strip.setSpan(this.mode === "section" ? Number(this.sectionLength.value) : null);
    if (!this.source) return;
    if (this.mode === "frame") this.renew();
    else if (this.mode === "section") this.#showSection();
    else this.#showResult();
  }

  /** Ask for the frame again, when the hand has come to rest. */
  renew() {
    clearTimeout(this.timer);
    if (!this.source || this.mode !== "frame") return;
    this.timer = setTimeout(() => this.#preview(), PATIENCE_MS);
  }

  async #preview() {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const source = this.source;
    this.#setBusy(true);
    const [x, y] = this.centre;
    try {
      const facts = await call("POST", "/api/previews", { source: source.id, seconds: this.strip.seconds, x, y, whole: this.whole.checked, settings: this.settings.values }, abort.signal);
      const images = await Promise.all(["bicubic", "result", "depth"].map((which) => loaded(`/api/previews/${facts.id}/${which}.png`)));
      if (abort.signal.aborted || this.mode !== "frame") return;
      this.viewer.setAspect((facts.size[0] / facts.size[1]) * (source.found.aspect / (source.found.width / source.found.height)));
      this.viewer.show(...images);
      this.root.dataset.preview = facts.id;
      this.showVeil(null);
      this.#showWhere(facts);
      this.#drawDepth();
      this.onPreview(facts);
    } catch (error) {
      if (error.name === "AbortError" || error.status === 409 || abort.signal.aborted) return;
      this.showVeil(error.message);
      this.onPreview(null);
    } finally {
      if (this.abort === abort) this.#setBusy(false);
    }
  }

  #setBusy(busy) {
    this.busy.hidden = !busy;
    this.root.setAttribute("aria-busy", busy);
  }

  showVeil(words, ...actions) {
    this.veil.hidden = words === null;
    if (words === null) return;
    if (this.veilWords.textContent !== words) this.veilWords.textContent = words;
    this.veilActions.replaceChildren(...actions);
  }

  #drawDepth() {
    const shown = this.mode === "frame" && this.showDepth.checked;
    this.depthLayer.hidden = !shown;
    this.legend.hidden = !shown;
  }

  // A frame that is too large for a second or two: a part of it.

  #showWhere(facts) {
    const [left, top, width, height] = facts.region;
    const small = width < 1 || height < 1;
    this.whereField.hidden = !small && !this.whole.checked;
    this.centre = [left + width / 2, top + height / 2];
    this.where.style.setProperty("--aspect", this.source.found.aspect);
    for (const [name, value] of Object.entries({ left, top, width, height })) this.wherePart.style[name] = `${100 * value}%`;
    const index = Math.min(this.thumbnails - 1, Math.floor((this.strip.seconds / Math.max(this.strip.length, 1e-6)) * this.thumbnails));
    this.whereImage.src = `/api/sources/${this.source.id}/thumbnails/${index}`;
  }

  #listenToWhere() {
    const go = (x, y) => {
      this.centre = [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))];
      this.renew();
    };
    this.where.addEventListener("click", (event) => {
      const box = this.where.getBoundingClientRect();
      go((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    this.where.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
      if (!(event.key in steps)) return;
      event.preventDefault();
      go(this.centre[0] + steps[event.key][0], this.centre[1] + steps[event.key][1]);
    });
    this.whole.addEventListener("change", () => this.renew());
  }

  // A short section: two videos made by the server.

  #sectionSettings() {
    const start = this.source.found.first_seconds + this.strip.seconds;
    const length = Math.min(Number(this.sectionLength.value), Math.max(this.strip.step, this.strip.length - this.strip.seconds));
    return { ...this.settings.values, encoding: "h264", crf: null, audio: "aac", subtitles: false, start: rounded(start), end: rounded(start + length) };
  }

  async #trySection() {
    try {
      await call("POST", "/api/jobs", { kind: "section", source: this.source.id, settings: this.#sectionSettings() });
    } catch (error) {
      this.showVeil(error.message);
    }
  }

  #showSection() {
    const wanted = this.#sectionSettings();
    const job = this.jobs.find((each) => each.kind === "section" && each.source === this.source.id && same(each.settings, wanted));
    if (job?.state === "done") {
      if (this.shownSection === job.id) return;
      this.shownSection = job.id;
      this.viewer.setAspect(this.source.found.aspect);
      const videos = this.player.open(`/media/${job.id}`, `/api/jobs/${job.id}/reference`, {
        step: this.strip.step, loop: true, onError: () => this.showVeil("This browser cannot play the section."),
      });
      this.viewer.show(...videos);
      this.showVeil(null);
      this.say("The section is ready to play.");
      return;
    }
    if (this.shownSection) this.player.close();
    this.shownSection = null;
    this.viewer.show(null, null);
    if (!job) this.showVeil("The section from here on can be upscaled and played beside bicubic.", this.#button("Try this section", () => this.#trySection()));
    else if (job.state === "failed") this.showVeil(job.message, this.#button("Try again", () => this.#trySection()));
    else {
      const { words } = progressOf(job);
      const stage = job.progress.run === 0 ? "Bicubic first" : "Upscaling the section";
      this.showVeil(`${job.state === "waiting" ? "Waiting for another section" : stage}${words ? `: ${words}` : "…"}`, this.#button("Cancel", () => call("POST", `/api/jobs/${job.id}/cancel`).catch((error) => this.onProblem(error.message))));
    }
  }

  // A result against its source.

  #showResult() {
    const { job, source } = this.result;
    this.left.textContent = source ? "Source, enlarged by the browser" : "";
    this.right.textContent = job.result_name;
    const files = { lead: job.id, follower: source?.id ?? null };
    this.result.files = files;
    this.result.failed = {};
    this.viewer.setAspect(source?.found.aspect ?? (job.report?.output_size ? job.report.output_size[0] / job.report.output_size[1] : 16 / 9));
    this.#playResult(`/media/${files.lead}`, files.follower ? `/media/${files.follower}` : null);
  }

  #playResult(lead, follower) {
    const onError = (which) => {
      this.result.failed[which] = true;
      this.#followCopies();
    };
    this.viewer.show(...this.player.open(lead, follower, { step: this.strip.step, loop: false, onError }));
    this.showVeil(null);
  }

  /** Where the browser cannot play a file: offer a copy that it can, and play that when it is there. */
  #followCopies() {
    const { files, failed } = this.result;
    const wanted = Object.keys(failed).filter((which) => files[which]);
    if (!wanted.length) return;
    const copies = wanted.map((which) => this.jobs.find((job) => job.kind === "copy" && job.source === files[which]));
    if (copies.every((job) => job?.state === "done")) {
      const url = (which) => (failed[which] ? `/media/${copies[wanted.indexOf(which)].id}` : files[which] && `/media/${files[which]}`);
      const [lead, follower] = [url("lead"), url("follower")];
      this.result.files = {};
      this.#playResult(lead, follower);
      this.left.textContent = failed.follower ? "Source, small copy" : this.left.textContent;
      this.right.textContent = failed.lead ? `${this.result.job.result_name}, small copy` : this.right.textContent;
      return;
    }
    const broken = copies.find((job) => job?.state === "failed");
    if (broken) return void this.showVeil(broken.message);
    const names = wanted.map((which) => (which === "lead" ? "the result" : "the source")).join(" and ");
    if (copies.every((job) => job)) {
      const { words } = progressOf(copies.find((job) => job.state !== "done"));
      return void this.showVeil(`Making a small copy of ${names}${words ? `: ${words}` : "…"}`);
    }
    const make = async () => {
      try {
        for (const which of wanted) await call("POST", "/api/copies", { of: files[which] });
      } catch (error) {
        this.showVeil(error.message);
      }
    };
    this.showVeil(`This browser cannot play ${names} (codec, bit depth or container). The file itself is whole: download it, or make a small copy to look at here.`, this.#button("Make a small copy", make));
  }

  #button(words, onclick) {
    return el("button", { type: "button", onclick }, words);
  }
}

const rounded = (seconds) => Math.round(1e6 * seconds) / 1e6;
const same = (one, two) => Object.keys(two).every((name) => (one[name] ?? null) === (two[name] ?? null));

function loaded(url) {
  const image = el("img", { src: url, alt: "", draggable: false });
  return image.decode().then(() => image);
}
