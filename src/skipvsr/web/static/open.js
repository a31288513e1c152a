// Opening videos: files that are dropped or chosen, and folders on the server.

import { call, upload } from "./api.js";
import { bytes, el, plural } from "./format.js";

export class Opener {
  /** `onOpen(source)` with each; `onProblem(words)`. */
  constructor({ onOpen, onProblem }) {
    this.onOpen = onOpen;
    this.onProblem = onProblem;
    this.limit = Infinity;
    this.uploads = document.querySelector("#uploads");
    const files = document.querySelector("#files");
    for (const id of ["#choose", "#welcome-choose"]) document.querySelector(id).addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
      this.take([...files.files]);
      files.value = "";
    });
    this.#listenToDrops();
    this.folders = new Folders(onOpen, onProblem);
  }

  /** Upload files, one after the other. */
  async take(files) {
    for (const file of files) await this.#upload(file);
  }

  async #upload(file) {
    if (file.size > this.limit) {
      this.onProblem(`${file.name} is ${bytes(file.size)}; at most ${bytes(this.limit)} may be uploaded. Start with --root FOLDER to open it where it is.`);
      return;
    }
    const controls = {};
    const bar = el("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    const words = el("span", { className: "quiet" }, bytes(file.size));
    const row = el("li", {}, el("span", { className: "name" }, file.name), bar, words, el("button", { type: "button", onclick: () => controls.abort() }, "Cancel"));
    this.uploads.append(row);
    try {
      const source = await upload(file, (done) => {
        bar.value = done;
        if (done >= 1) words.textContent = "looking into it…";
      }, controls);
      this.onOpen(source);
    } catch (error) {
      if (error.message) this.onProblem(error.message);
    } finally {
      row.remove();
    }
  }

  #listenToDrops() {
    const cover = document.querySelector("#drop-cover");
    let depth = 0;
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    const show = (change) => {
      depth = Math.max(0, depth + change);
      cover.hidden = depth === 0;
    };
    window.addEventListener("dragenter", (event) => { if (hasFiles(event)) show(1); });
    window.addEventListener("dragleave", (event) => { if (hasFiles(event)) show(-1); });
    window.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
    window.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      show(-Infinity);
      depth = 0;
      this.take([...event.dataTransfer.files]);
    });
  }
}

class Folders {
  constructor(onOpen, onProblem) {
    this.onOpen = onOpen;
    this.onProblem = onProblem;
    this.dialog = document.querySelector("#folders");
    [this.trail, this.entries, this.leftOut, this.openChosen] = ["#trail", "#entries", "#left-out", "#open-chosen"].map((id) => this.dialog.querySelector(id));
    for (const id of ["#browse", "#welcome-browse"]) document.querySelector(id).addEventListener("click", () => this.open());
    this.openChosen.addEventListener("click", () => this.#take());
    this.entries.addEventListener("change", () => this.#count());
  }

  async open() {
    this.dialog.showModal();
    await this.#list(null);
  }

  async #list(id) {
    try {
      const found = await call("GET", id ? `/api/folders/${id}` : "/api/folders");
      if (id === null && found.folders.length === 1) return await this.#list(found.folders[0].id);
      this.#show(found);
    } catch (error) {
      this.dialog.close();
      this.onProblem(error.message);
    }
    return undefined;
  }

  #show(found) {
    const step = (words, id) => el("button", { type: "button", className: "link", onclick: () => this.#list(id) }, words);
    this.trail.replaceChildren(...found.parents.map((parent) => step(parent.name, parent.id)), el("span", { ariaCurrent: "location" }, found.name ?? "Allowed folders"));
    this.entries.replaceChildren(
      ...found.folders.map((folder) => el("li", {}, el("button", { type: "button", className: "link folder", onclick: () => this.#list(folder.id) }, folder.name))),
      ...found.files.map((file) => el("li", {}, el("label", { className: "check" }, el("input", { type: "checkbox", value: file.id }), el("span", { className: "name" }, file.name), el("span", { className: "quiet" }, bytes(file.bytes))))));
    if (!found.folders.length && !found.files.length) this.entries.replaceChildren(el("li", { className: "quiet" }, "There is no video in here."));
    this.leftOut.textContent = found.left_out ? `${found.left_out} more are not shown.` : "";
    this.#count();
    this.entries.querySelector("button, input")?.focus();
  }

  #chosen() {
    return [...this.entries.querySelectorAll("input:checked")].map((input) => input.value);
  }

  #count() {
    const count = this.#chosen().length;
    this.openChosen.disabled = !count;
    this.openChosen.textContent = count ? `Open ${plural(count, "video")}` : "Open";
  }

  async #take() {
    const chosen = this.#chosen();
    this.dialog.close();
    for (const file of chosen) {
      try {
        this.onOpen(await call("POST", "/api/sources", { file }));
      } catch (error) {
        this.onProblem(error.message);
      }
    }
  }
}
