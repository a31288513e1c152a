// Talking to the server: requests, uploads with their progress, and the stream of changes.

/** What the server refused, in its words. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function call(method, path, body, signal) {
  const options = { method, signal, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached.", 0);
  }
  const values = response.headers.get("content-type")?.includes("json") ? await response.json() : null;
  if (!response.ok) throw new Refusal(values?.error ?? `The server answered ${response.status}.`, response.status);
  return values;
}

/** Upload a file; resolves with the source. `controls.abort` breaks it off. */
export function upload(file, onProgress, controls) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/uploads?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / Math.max(1, event.total)));
    request.addEventListener("load", () => {
      if (request.status === 200) resolve(request.response);
      else reject(new Refusal(request.response?.error ?? `The server answered ${request.status}.`, request.status));
    });
    request.addEventListener("error", () => reject(new Refusal("The upload was broken off: the server closed it or cannot be reached.", 0)));
    request.addEventListener("abort", () => reject(new Refusal("", -1)));
    controls.abort = () => request.abort();
    request.send(file);
  });
}

/** Hear of every change. Hidden pages do not listen: browsers allow few connections to one server, and tabs add up. */
export function listen(onState, onReachable) {
  let source = null;
  let retry = 0;
  const open = () => {
    clearTimeout(retry);
    source?.close();
    source = new EventSource("/api/events");
    source.addEventListener("open", () => onReachable(true));
    source.addEventListener("state", (event) => onState(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      onReachable(false);
      if (source.readyState === EventSource.CLOSED) retry = setTimeout(open, 2000);
    });
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(retry);
      source?.close();
    } else open();
  });
  if (!document.hidden) open();
}
