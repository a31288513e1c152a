// The choices of a job: preset, budget, model, output, encoding.

import { el } from "./format.js";

const AUTO = "auto";
// The output of a model of x2.
const HALF = "x2";
const HEIGHTS = [[1080, "1080p"], [1440, "1440p"], [2160, "2160p"]];

export class Settings {
  constructor(root, onChange) {
    this.root = root;
    this.models = {};
    this.budgets = {};
    this.found = null;
    const get = (id) => root.querySelector(`#${id}`);
    this.presets = get("presets");
    [this.budget, this.budgetWords, this.model, this.about] = ["budget", "budget-words", "model", "model-about"].map(get);
    [this.size, this.encoding, this.crf, this.audio] = ["size", "encoding", "crf", "audio"].map(get);
    this.presets.addEventListener("change", (event) => {
      this.budget.value = 100 * this.budgets[event.target.value];
      this.#show();
      onChange();
    });
    this.budget.addEventListener("input", () => { this.#show(); onChange(); });
    for (const field of [this.model, this.size, this.encoding, this.crf, this.audio]) field.addEventListener("change", () => { this.#show(); onChange(); });
    this.#show();
  }

  /** What there is: models by name, and budgets of presets by name. */
  setOffers(models, presets) {
    this.models = models;
    this.budgets = presets;
    this.presets.append(...Object.keys(presets).map((name) => el("label", {}, el("input", { type: "radio", name: "preset", value: name }), el("span", {}, name[0].toUpperCase() + name.slice(1)))));
    this.model.replaceChildren(...Object.keys(models).map((name) => el("option", { value: name }, models[name].about ? `${name}: ${models[name].about}` : name)));
    this.#show();
  }

  /** Offer the output sizes of a source. */
  setFound(found) {
    this.found = found;
    this.#sizes();
  }

  /** As the server takes them. */
  get values() {
    const budget = Number(this.budget.value) / 100;
    return {
      model: this.model.value,
      scale: this.size.value === HALF ? 2 : null,
      budget: this.#skips && budget < 1 ? budget : null,
      height: Number(this.size.value) || null,
      encoding: this.encoding.value || null,
      crf: this.crf.value && !this.crf.disabled ? Number(this.crf.value) : null,
      audio: this.audio.value || null,
    };
  }

  /** Say which model was taken, where that was left open. */
  setChoice(facts) {
    if (this.model.value === AUTO && facts) this.#about(`${facts.model}: ${facts.model_reason}`);
  }

  /** Only models with a router can do without blocks. */
  get #skips() {
    return this.models[this.model.value]?.skips ?? true;
  }

  get scale() {
    return this.models[this.model.value]?.scale ?? 4;
  }

  #sizes() {
    if (!this.found) return;
    const { width, height } = this.found;
    const before = this.size.value;
    const shown = (lines) => `${2 * Math.round((width * lines) / height / 2)} × ${lines}`;
    const times = (scale) => `× ${scale}, ${width * scale} × ${height * scale}`;
    const options = [["", times(this.scale)]];
    if (this.model.value === AUTO) options.push([HALF, times(2)]);
    for (const [lines, name] of HEIGHTS) if (lines > height) options.push([lines, `${name}, ${shown(lines)}`]);
    this.size.replaceChildren(...options.map(([value, words]) => el("option", { value }, words)));
    this.size.value = options.some(([value]) => String(value) === before) ? before : "";
  }

  #show() {
    this.#sizes();
    const value = Number(this.budget.value);
    const skips = this.#skips;
    this.budget.disabled = !skips;
    this.presets.disabled = !skips;
    const words = !skips ? "this model runs all blocks" : value === 100 ? "all blocks" : `${value} % of the blocks`;
    this.budgetWords.textContent = words;
    this.budget.setAttribute("aria-valuetext", words);
    this.#about("");
    this.crf.disabled = this.encoding.value === "ffv1";
    for (const input of this.presets.querySelectorAll("input")) {
      input.checked = skips && Math.abs(100 * this.budgets[input.value] - value) < 0.5;
    }
  }

  #about(words) {
    this.about.textContent = words;
    this.about.hidden = !words;
  }
}
