"use strict";
// Keeps a page current: loads it again in the background, and follows the log of a job that runs.
(() => {
  let paused = false, source = null, timer = 0;

  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Pause updates";
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume updates" : "Pause updates";
    if (paused) stop(); else { follow(); refresh(); }
  });
  document.querySelector("footer").append(button);

  function stop() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  function busy() {
    const selected = getSelection();
    const focused = document.activeElement;
    return document.hidden || source || (selected && !selected.isCollapsed) || (focused && focused.closest("main"));
  }

  function schedule() {
    clearTimeout(timer);
    if (!paused) timer = setTimeout(refresh, 1000 * Number(document.body.dataset.refresh));
  }

  async function refresh() {
    try {
      if (!busy()) {
        const answer = await fetch(location.href, { cache: "no-store" });
        const found = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (answer.ok && !busy()) {
          const opened = [...document.querySelectorAll("details")].map(one => one.open);
          for (const part of ["header", "main"]) document.querySelector(part).replaceWith(found.querySelector(part));
          document.querySelectorAll("details").forEach((one, place) => { one.open = Boolean(opened[place]); });
          document.title = found.title;
          document.body.dataset.refresh = found.body.dataset.refresh;
          follow();
        }
      }
    } catch {
      // bdauto does not answer: the next time, perhaps
    }
    schedule();
  }

  function follow() {
    const log = document.querySelector("[data-live]");
    if (!log || source || paused) return;
    const text = log.querySelector("pre");
    source = new EventSource(log.dataset.live);
    source.addEventListener("log", event => { text.textContent = event.data || "no output"; });
    source.addEventListener("more", event => { if (event.data) text.append(`\n${event.data}`); });
    source.addEventListener("end", () => {
      source.close();
      source = null;
      log.removeAttribute("data-live");
      schedule();
    });
    source.addEventListener("error", () => {
      if (source && source.readyState === EventSource.CLOSED) source = null;  // too many readers: the refresh goes on
    });
  }

  follow();
  schedule();
})();
