// The log of a Shard: more lines in place, following while it is live, wrapping.
const FOLLOW_PAGES_MAX = 40; // pages read on at once before the eye must rest
const place = document.querySelector("[data-log]");
const lines = document.querySelector("[data-log-lines]");

async function page(address) {
  const url = new URL(address, location.href);
  const answer = await fetch(url, { headers: { "X-Fragment": "log" } });
  if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
  const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
  return parsed;
}

function more() {
  return lines.querySelector("[data-more]");
}

async function append(link) {
  const next = await page(link.getAttribute("href"));
  const list = lines.querySelector(".log");
  const known = new Set([...list.children].map((line) => line.id));
  for (const line of next.querySelectorAll(".log > li")) {
    if (!known.has(line.id)) list.append(line);
  }
  link.closest("p").remove();
  const further = next.querySelector("[data-more]");
  if (further) lines.append(further.closest("p"));
  return list;
}

lines.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-more]");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  link.textContent = "Loading …";
  try {
    await append(link);
  } catch {
    location.href = link.href; // the plain way shows what went wrong
  }
});

// Following: read on to the end, then ask for the last page anew.
let last = location.href;

async function readOn(every, box) {
  if (box.checked && !document.hidden) {
    try {
      for (let at = 0; at < FOLLOW_PAGES_MAX && more(); at += 1) {
        last = new URL(more().getAttribute("href"), location.href).href;
        await append(more());
      }
      await renew();
    } catch {
      box.parentElement.title = "The site does not answer; trying again";
    }
  }
  setTimeout(() => readOn(every, box), every);
}

async function renew() {
  const fresh = await page(last);
  const list = lines.querySelector(".log");
  if (!list) {
    lines.replaceChildren(...fresh.body.childNodes);
    return;
  }
  const known = new Set([...list.children].map((line) => line.id));
  const added = [...fresh.querySelectorAll(".log > li")].filter((l) => !known.has(l.id));
  list.append(...added);
  const further = fresh.querySelector("[data-more]");
  if (further && !more()) lines.append(further.closest("p"));
  if (added.length) list.scrollTop = list.scrollHeight;
}

const every = Number(place.dataset.follow);
const followBox = place.querySelector("[data-follow-box]");
if (every && followBox) {
  followBox.hidden = false;
  readOn(every, followBox.querySelector("input"));
}

const wrapBox = place.querySelector("[data-wrap]");
wrapBox.hidden = false;
wrapBox.addEventListener("change", (event) => {
  lines.classList.toggle("wrapped", event.target.checked);
});

// ] and [ go to the next Shard and the one before, e to the next with errors.
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.metaKey || event.ctrlKey) return;
  const where = { "]": "[rel=next]", "[": "[rel=prev]", e: "[data-next-troubled]" };
  const link = where[event.key] && document.querySelector(where[event.key]);
  if (link) location.href = link.href;
});
