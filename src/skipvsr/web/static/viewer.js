// Two images, or two videos, one over the other, with a line between them. Zoom and place are shared by all layers.

const MAX_ZOOM = 16;

export class Viewer {
  /** `root` holds layers #under, #over and #depth, each with a .canvas. */
  constructor(root, onZoom) {
    this.root = root;
    this.onZoom = onZoom;
    this.canvases = Object.fromEntries(["under", "over", "depth"].map((name) => [name, root.querySelector(`#${name} .canvas`)]));
    this.wipe = 50;
    this.zoom = 1;
    this.x = this.y = 0;
    this.togglePlay = null;
    this.#listen();
    this.#draw();
  }

  /** Show elements in the layers; null leaves one empty. */
  show(under, over, depth = null) {
    for (const [name, node] of Object.entries({ under, over, depth })) this.canvases[name].replaceChildren(...(node ? [node] : []));
    this.root.classList.toggle("single", !under);
  }

  setAspect(aspect) {
    this.root.style.setProperty("--aspect", aspect);
  }

  setWipe(percent) {
    this.wipe = Math.min(100, Math.max(0, percent));
    this.#draw();
  }

  /** Zoom, keeping a point (in [0, 1] of the viewer) where it is. */
  setZoom(zoom, atX = 0.5, atY = 0.5) {
    const next = Math.min(MAX_ZOOM, Math.max(1, zoom));
    this.x = atX - (atX - this.x) * (next / this.zoom);
    this.y = atY - (atY - this.y) * (next / this.zoom);
    this.zoom = next;
    this.#draw();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#draw();
  }

  #draw() {
    // No further than the edges of the image.
    this.x = Math.min(0, Math.max(1 - this.zoom, this.x));
    this.y = Math.min(0, Math.max(1 - this.zoom, this.y));
    const style = this.root.style;
    style.setProperty("--wipe", `${this.wipe}%`);
    style.setProperty("--zoom", this.zoom);
    style.setProperty("--x", `${100 * this.x}%`);
    style.setProperty("--y", `${100 * this.y}%`);
    this.root.classList.toggle("close", this.zoom >= 4);
    this.root.classList.toggle("zoomed", this.zoom > 1);
    this.root.setAttribute("aria-valuenow", Math.round(this.wipe));
    this.root.setAttribute("aria-valuetext", `line at ${Math.round(this.wipe)} percent, zoom ${this.zoom.toFixed(1)}`);
    this.onZoom(this.zoom);
  }

  #place(event) {
    const box = this.root.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #listen() {
    const root = this.root;
    let drag = null;
    root.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest("button")) return;
      drag = { x: event.clientX, y: event.clientY, moved: false, line: event.pointerType !== "mouse" && (this.zoom === 1 || event.target.closest(".line")) };
      root.setPointerCapture(event.pointerId);
    });
    root.addEventListener("pointermove", (event) => {
      const [x] = this.#place(event);
      if (!drag) {
        if (event.pointerType === "mouse") this.setWipe(100 * x);
        return;
      }
      const box = root.getBoundingClientRect();
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      if (drag.line || this.zoom === 1) this.setWipe(100 * x);
      else {
        this.pan(dx / box.width, dy / box.height);
        [drag.x, drag.y] = [event.clientX, event.clientY];
      }
    });
    for (const name of ["pointerup", "pointercancel"]) root.addEventListener(name, () => { drag = null; });
    root.addEventListener("dblclick", (event) => {
      if (event.target.closest("button")) return;
      this.setZoom(this.zoom > 1 ? 1 : 4, ...this.#place(event));
    });
    root.addEventListener("wheel", (event) => {
      // The page scrolls as ever; with Ctrl or Cmd, and with a pinch, the image zooms.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.setZoom(this.zoom * Math.exp(-event.deltaY / 200), ...this.#place(event));
    }, { passive: false });
    root.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    const wipes = { ArrowLeft: -2, ArrowRight: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    if (event.shiftKey && event.key in moves) this.pan(...moves[event.key]);
    else if (event.key in wipes) this.setWipe(this.wipe + wipes[event.key]);
    else if (event.key === "+" || event.key === "=") this.setZoom(this.zoom * 1.5);
    else if (event.key === "-") this.setZoom(this.zoom / 1.5);
    else if (event.key === "0") this.setZoom(1);
    else if (event.key === " " && this.togglePlay) this.togglePlay();
    else return;
    event.preventDefault();
  }
}
