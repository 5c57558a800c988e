// Looks again how far a job is, until it has ended. Without it the page says how far it was.
"use strict";

const SECONDS = 2;

async function lookAgain() {
  const region = document.getElementById("progress");
  if (!region || !("running" in region.dataset)) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Requested-With": "XMLHttpRequest" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = answer.ok && page.getElementById("progress");
    if (next) {
      const had = region.querySelector("[role=status]");
      const has = next.querySelector("[role=status]");
      if (had.textContent === has.textContent) has.replaceWith(had); // not read out again
      region.replaceWith(next);
      if (!("running" in next.dataset)) document.querySelector("form.resolutions")?.remove();
    } else if (answer.redirected) {
      return; // logged out
    }
  } catch {
    // the server is away for a moment
  }
  setTimeout(lookAgain, SECONDS * 1000);
}

setTimeout(lookAgain, SECONDS * 1000);
