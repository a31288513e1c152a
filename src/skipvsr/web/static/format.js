// Numbers and names as people read them.

/** Make an element: properties by name, `on…` listeners, children as nodes or texts. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "role") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** 83.5 -> "1:23.50" */
export function clock(seconds, digits = 2) {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60);
  const rest = (whole - 60 * minutes).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

/** 5000 -> "1 h 23 min" */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${(hours / 24).toFixed(1)} days`;
}

/** 1234567 -> "1.2 MB" */
export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (count >= 1000 && index < units.length - 1) [count, index] = [count / 1000, index + 1];
  return `${index && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[index]}`;
}

export const percent = (ratio) => `${Math.round(100 * ratio)} %`;
export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const CODECS = {
  h264: "H.264", hevc: "H.265 (HEVC)", av1: "AV1", vp9: "VP9", vp8: "VP8", mpeg2video: "MPEG-2", mpeg4: "MPEG-4",
  prores: "ProRes", ffv1: "FFV1", mjpeg: "Motion JPEG", libx264: "H.264", libx265: "H.265", aac: "AAC", opus: "Opus",
  mp3: "MP3", ac3: "AC-3", eac3: "E-AC-3", vorbis: "Vorbis", flac: "FLAC",
  wmv1: "WMV 7", wmv2: "WMV 8", wmv3: "WMV 9", vc1: "VC-1", wmav1: "WMA", wmav2: "WMA", wmapro: "WMA Pro",
};
export const codecName = (name) => CODECS[name] ?? name;
const CONTAINERS = [["matroska,webm", "Matroska"], ["mov,mp4", "MP4 / QuickTime"], ["mpegts", "MPEG-TS"], ["avi", "AVI"], ["asf", "ASF"]];
export const containerName = (name) => CONTAINERS.find(([start]) => name.startsWith(start))?.[1] ?? name;
const MATRICES = { 0: "RGB", 1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020" };

/** "10 bits, BT.2020, HDR" */
export function colourWords(found) {
  const words = [`${found.bits} bits`, found.pixel_format, MATRICES[found.colour.matrix] ?? "other colours"];
  if (found.colour.range === 2) words.push("full range");
  if (found.colour.hdr) words.push("HDR");
  return words.join(", ");
}

/** "AAC, stereo" */
export function soundWords(sounds) {
  if (!sounds.length) return "none";
  const channels = (count) => ({ 1: "mono", 2: "stereo" })[count] ?? `${count} channels`;
  return sounds.map((sound) => `${codecName(sound.codec)}, ${channels(sound.channels)}`).join("; ");
}

/** Fill a <dl>. */
export function fill(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value, note]) => el("div", {}, el("dt", {}, name), el("dd", {}, value), note ? el("dd", { className: "note" }, note) : null)));
}
