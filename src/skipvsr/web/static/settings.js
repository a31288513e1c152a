// The choices of a job: preset, budget, model, output, encoding.

import { el } from "./format.js";

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
    [this.size, this.encoding, this.crf] = ["size", "encoding", "crf"].map(get);
    this.presets.addEventListener("change", (event) => {
      this.budget.value = 100 * this.budgets[event.target.value];
      this.#show();
      onChange();
    });
    this.budget.addEventListener("input", () => { this.#show(); onChange(); });
    for (const field of [this.model, this.size, this.encoding, this.crf]) field.addEventListener("change", () => { this.#show(); onChange(); });
    this.#show();
  }

  /** What there is: models by name, and budgets of presets by name. */
  setOffers(models, presets) {
    this.models = models;
    this.budgets = presets;
    this.presets.append(...Object.keys(presets).map((name) => el("label", {}, el("input", { type: "radio", name: "preset", value: name }), el("span", {}, name[0].toUpperCase() + name.slice(1)))));
    this.model.replaceChildren(...Object.keys(models).map((name) => el("option", { value: name }, name)));
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
    const skips = this.models[this.model.value]?.skips;
    return {
      model: this.model.value,
      budget: skips && budget < 1 ? budget : null,
      height: this.size.value ? Number(this.size.value) : null,
      encoding: this.encoding.value || null,
      crf: this.crf.value && !this.crf.disabled ? Number(this.crf.value) : null,
    };
  }

  get scale() {
    return this.models[this.model.value]?.scale ?? 4;
  }

  #sizes() {
    if (!this.found) return;
    const { width, height } = this.found;
    const before = this.size.value;
    const shown = (lines) => `${2 * Math.round((width * lines) / height / 2)} × ${lines}`;
    const options = [["", `× ${this.scale}, ${width * this.scale} × ${height * this.scale}`]];
    for (const [lines, name] of HEIGHTS) if (lines > height) options.push([lines, `${name}, ${shown(lines)}`]);
    this.size.replaceChildren(...options.map(([value, words]) => el("option", { value }, words)));
    this.size.value = options.some(([value]) => String(value) === before) ? before : "";
  }

  #show() {
    const model = this.models[this.model.value];
    const value = Number(this.budget.value);
    const skips = model?.skips ?? true;
    this.budget.disabled = !skips;
    this.presets.disabled = !skips;
    const words = !skips ? "this model runs all blocks" : value === 100 ? "all blocks" : `${value} % of the blocks`;
    this.budgetWords.textContent = words;
    this.budget.setAttribute("aria-valuetext", words);
    this.about.textContent = model?.about ?? "";
    this.about.hidden = !model?.about;
    this.crf.disabled = this.encoding.value === "ffv1";
    for (const input of this.presets.querySelectorAll("input")) {
      input.checked = Math.abs(100 * this.budgets[input.value] - value) < 0.5;
    }
    this.#sizes();
  }
}
