// Comfort for pages that work without it: copying, times in the reader's zone, rows of forms, a
// question before unsaved changes are lost, and how far a change has come.
"use strict";

const say = (text) => {
  let region = document.getElementById("announcement");
  if (!region) {
    region = document.createElement("div");
    region.id = "announcement";
    region.className = "visually-hidden";
    region.setAttribute("role", "status");
    document.body.append(region);
  }
  region.textContent = text;
};

// The button says it as well, for who does not hear the announcement.
const confirmOn = (button, text) => {
  button.dataset.label ??= button.textContent;
  button.textContent = text;
  say(text);
  setTimeout(() => { button.textContent = button.dataset.label; }, 2000);
};

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS browsers have no clipboard for scripts; the old way still works.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  }
};

for (const button of document.querySelectorAll("[data-copy-from]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copyFrom);
    const isCopied = await copy(source.textContent.trim());
    if (!isCopied) getSelection().selectAllChildren(source);
    confirmOn(button, isCopied ? "Copied" : "Selected: copy it by hand");
  });
}

// Where it cannot be copied, the page that shows it can be opened all the same.
for (const form of document.querySelectorAll("form[data-copy]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: { accept: "text/plain" },
        body: new URLSearchParams(new FormData(form)),
      });
      const type = answer.headers.get("content-type") || "";
      if (answer.ok && type.startsWith("text/plain") && await copy(await answer.text())) {
        confirmOn(form.querySelector(":scope > button"), "Copied");
        return;
      }
    } catch {
      // The answer to the form says what is wrong.
    }
    form.submit();
  });
}

// Server and browser agree on the moment; only the zone differs.
const inZone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const inZoneToTheSecond = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
for (const time of document.querySelectorAll("time[datetime]")) {
  const format = "seconds" in time.dataset ? inZoneToTheSecond : inZone;
  time.textContent = format.format(new Date(time.dateTime));
}

// Rows: the server makes the same where there is no script.
const renumber = (row, prefix, number) => {
  const pattern = new RegExp(`^${prefix}-\\d+-`);
  for (const element of row.querySelectorAll("[name], [id], [for]")) {
    for (const attribute of ["name", "id", "for"]) {
      const value = element.getAttribute(attribute);
      if (value && pattern.test(value)) {
        element.setAttribute(attribute, value.replace(pattern, `${prefix}-${number}-`));
      }
    }
    if (element.matches("[data-remove]")) element.value = number;
  }
};

for (const rows of document.querySelectorAll("[data-rows]")) {
  const prefix = rows.dataset.rows;
  const add = rows.querySelector(`[name="add-${prefix}"]`);
  const blank = rows.querySelector("template[data-blank]").content.firstElementChild;
  const numbers = [...rows.querySelectorAll("[data-remove]")].map((button) => Number(button.value));
  let next = 1 + Math.max(-1, ...numbers);
  add.addEventListener("click", (event) => {
    event.preventDefault();
    const row = blank.cloneNode(true);
    renumber(row, prefix, next++);
    add.before(row);
    row.querySelector("input, select").focus();
    add.form.dispatchEvent(new Event("change"));
  });
  rows.addEventListener("click", (event) => {
    const button = event.target.closest("[data-remove]");
    if (!button) return;
    event.preventDefault();
    button.closest("[data-row]").remove();
    add.focus();
    add.form.dispatchEvent(new Event("change"));
  });
}

// Unsaved changes: the browser asks.
for (const form of document.querySelectorAll("form[data-guard]")) {
  let isChanged = form.dataset.guard === "changed";
  const note = () => { isChanged = true; form.classList.add("changed"); };
  if (isChanged) note();
  form.addEventListener("input", note);
  form.addEventListener("change", note);
  form.addEventListener("submit", () => { isChanged = false; });
  addEventListener("beforeunload", (event) => { if (isChanged) event.preventDefault(); });
}

// On narrow screens the menu is a row that may be longer than the screen.
document.querySelector(".side [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// What was just done is said once: not after a reload, and not to who gets the address.
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  here.searchParams.delete("done");
  here.searchParams.delete("since");
  history.replaceState(history.state, "", here);
}

// A target within closed details is of no use.
const openTarget = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
openTarget();
addEventListener("hashchange", openTarget);

for (const place of document.querySelectorAll("[data-in-force]")) {
  const until = Date.now() + 15000;
  const look = async () => {
    const answer = await fetch(place.dataset.inForce);
    if (!answer.ok) return;
    const { held, total } = await answer.json();
    place.textContent = total === 0
      ? "No proxy of this API is connected: it will be in force when one is."
      : `In force in ${held} of ${total} ${total === 1 ? "proxy" : "proxies"}.`;
    if (held < total && Date.now() < until) setTimeout(look, 300);
  };
  look();
}
