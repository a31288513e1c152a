// The filmstrip: thumbnails over the length of the video, and a mark at the chosen moment.

import { clock, el } from "./format.js";

export class Strip {
  constructor(root, onChoose) {
    this.root = root;
    this.onChoose = onChoose;
    this.thumbnails = root.querySelector("#thumbnails");
    this.mark = root.querySelector("#mark");
    this.span = root.querySelector("#span");
    this.seconds = 0;
    this.length = 0;
    this.step = 0.04;
    this.#listen();
  }

  /** Show a source, at a moment. */
  open(source, count, seconds) {
    this.length = source.found.seconds ?? 0;
    this.step = source.found.frame_rate ? 1 / source.found.frame_rate : 0.04;
    this.thumbnails.replaceChildren(...Array.from({ length: count }, (_, index) =>
      el("img", { src: `/api/sources/${source.id}/thumbnails/${index}`, alt: "", draggable: false, onerror: (event) => event.target.classList.add("broken") })));
    this.root.setAttribute("aria-valuemax", this.length.toFixed(3));
    this.set(seconds);
  }

  set(seconds) {
    // The middle of a frame: never on the border between two.
    const last = Math.max(0, this.length - this.step);
    this.seconds = Math.round(Math.min(last, Math.max(0, seconds)) / this.step) * this.step;
    const place = this.length ? this.seconds / this.length : 0;
    this.mark.style.left = `${100 * place}%`;
    this.span.style.left = `${100 * place}%`;
    this.root.setAttribute("aria-valuenow", this.seconds.toFixed(3));
    this.root.setAttribute("aria-valuetext", clock(this.seconds));
  }

  /** Show that a section of so many seconds begins at the mark; null: a single frame. */
  setSpan(seconds) {
    this.span.hidden = seconds === null;
    if (seconds === null || !this.length) return;
    const shown = Math.min(seconds, Math.max(0, this.length - this.seconds));
    this.span.style.width = `${(100 * shown) / this.length}%`;
  }

  #choose(seconds) {
    this.set(seconds);
    this.onChoose(this.seconds);
  }

  #listen() {
    const at = (event) => {
      const box = this.root.getBoundingClientRect();
      this.#choose(((event.clientX - box.left) / box.width) * this.length);
    };
    this.root.addEventListener("pointerdown", (event) => {
      this.root.setPointerCapture(event.pointerId);
      at(event);
    });
    this.root.addEventListener("pointermove", (event) => {
      if (this.root.hasPointerCapture(event.pointerId)) at(event);
    });
    this.root.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -this.step, ArrowRight: this.step, ArrowDown: -this.step, ArrowUp: this.step, PageDown: -1, PageUp: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#choose(this.seconds + steps[event.key]);
    });
  }
}
