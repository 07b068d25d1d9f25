// Keeps a page current: whenever billing says that something has changed, reads the page again and replaces those parts
// that changed. Without it the page is complete, and its link refreshes it.
(() => {
  "use strict";
  if (!window.EventSource || !document.querySelector("[data-live]")) return;
  const note = document.getElementById("live");
  let isReading = false;
  let isStale = false;

  const replace = (next) => {
    for (const now of document.querySelectorAll("[data-live]")) {
      const other = next.getElementById(now.id);
      if (!other || other.outerHTML === now.outerHTML) continue;
      const focused = now.contains(document.activeElement) ? document.activeElement : null;
      const at = focused ? [...now.querySelectorAll("a, [tabindex]")].indexOf(focused) : -1;
      now.replaceWith(document.adoptNode(other));
      if (at >= 0) {
        const target = other.querySelectorAll("a, [tabindex]")[at];
        if (target) target.focus({ preventScroll: true });
      }
    }
  };

  const read = async () => {
    if (isReading) {
      isStale = true;
      return;
    }
    isReading = true;
    do {
      isStale = false;
      try {
        const answer = await fetch(location.href, { redirect: "error", cache: "no-store" });
        if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch {
        note.hidden = true;
      }
    } while (isStale);
    isReading = false;
  };

  const events = new EventSource("/console/events");
  events.addEventListener("open", () => {
    note.hidden = false;
    read();
  });
  events.addEventListener("changed", read);
  events.addEventListener("error", () => {
    note.hidden = true;
  });
  window.addEventListener("pagehide", () => events.close());
})();
