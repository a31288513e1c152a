// Two videos that play in step: the upper one leads, the lower one follows to within half a frame.

import { clock, el } from "./format.js";

export class Player {
  /** Elements: {play, seek, clock, box}. */
  constructor(elements) {
    this.elements = elements;
    this.lead = this.follower = null;
    this.step = 1 / 25;
    elements.play.addEventListener("click", () => this.toggle());
    elements.seek.addEventListener("input", () => this.seek(Number(elements.seek.value)));
  }

  /** Make the two videos; `onError(which)` where one cannot be played. The follower may be null. */
  open(leadUrl, followerUrl, { step, loop, onError }) {
    this.close();
    this.step = step;
    const make = (url, which) => {
      const video = el("video", { src: url, preload: "auto", muted: which === "follower", loop, playsInline: true, disableRemotePlayback: true, onerror: () => onError(which) });
      // Where a browser knows the sound and not the video, it plays the sound and says nothing.
      video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) onError(which); });
      return video;
    };
    const lead = (this.lead = make(leadUrl, "lead"));
    this.follower = followerUrl ? make(followerUrl, "follower") : null;
    lead.addEventListener("loadedmetadata", () => {
      this.elements.seek.max = Number.isFinite(lead.duration) ? lead.duration : 1;
      this.#show();
    });
    for (const name of ["play", "pause", "seeked", "ended", "ratechange"]) lead.addEventListener(name, () => this.#match());
    lead.addEventListener("timeupdate", () => this.#show());
    if ("requestVideoFrameCallback" in lead) {
      const everyFrame = () => {
        if (this.lead !== lead) return;
        this.#match();
        lead.requestVideoFrameCallback(everyFrame);
      };
      lead.requestVideoFrameCallback(everyFrame);
    } else lead.addEventListener("timeupdate", () => this.#match());
    this.elements.box.hidden = false;
    return [this.follower, lead];
  }

  close() {
    for (const video of [this.lead, this.follower]) {
      if (!video) continue;
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    this.lead = this.follower = null;
    this.elements.box.hidden = true;
  }

  toggle() {
    if (!this.lead) return;
    if (this.lead.paused) this.lead.play().catch(() => {});
    else this.lead.pause();
  }

  seek(seconds) {
    if (!this.lead) return;
    this.lead.currentTime = seconds;
    this.#match();
  }

  /** How far apart the two are, in seconds; null where there is one. */
  get apart() {
    return this.follower ? Math.abs(this.lead.currentTime - this.follower.currentTime) : null;
  }

  #match() {
    const { lead, follower } = this;
    this.#show();
    if (!lead || !follower || follower.error) return;
    if (follower.playbackRate !== lead.playbackRate) follower.playbackRate = lead.playbackRate;
    if (this.apart > (lead.paused ? 0.001 : this.step / 2) && !follower.seeking) follower.currentTime = lead.currentTime;
    if (lead.paused !== follower.paused) {
      if (lead.paused) follower.pause();
      else follower.play().catch(() => {});
    }
  }

  #show() {
    if (!this.lead) return;
    const { play, seek, clock: output } = this.elements;
    play.textContent = this.lead.paused ? "Play" : "Pause";
    seek.value = this.lead.currentTime;
    seek.setAttribute("aria-valuetext", clock(this.lead.currentTime, 1));
    output.textContent = clock(this.lead.currentTime, 1);
  }
}
