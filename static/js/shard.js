// The log of a Shard: more lines in place, following while it is live, wrapping.
const FOLLOW_PAGES_MAX = 40; // pages read on at once before the eye must rest
const place = document.querySelector("[data-log]");
const lines = document.querySelector("[data-log-lines]");

function more() {
  return lines.querySelector("[data-more]");
}

// Adds what follows the lines shown; answers how many came.
async function append() {
  const link = more();
  const answer = await fetch(link.href, { headers: { "X-Fragment": "log" } });
  if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const list = lines.querySelector(".log");
  const added = [...next.querySelectorAll(".log > li")];
  list.append(...added);
  if (added.length) {
    list.hidden = false;
    lines.querySelector("[data-none]")?.remove();
  }
  const further = next.querySelector("[data-more]");
  if (further) link.href = new URL(further.getAttribute("href"), link.href).href;
  else link.closest("p").remove();
  return added.length;
}

lines.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-more]");
  if (!link || event.metaKey || event.ctrlKey) return;
  event.preventDefault();
  link.textContent = "Loading …";
  try {
    const added = await append();
    link.textContent = added ? "Later lines" : "Later lines (none yet)";
  } catch {
    location.href = link.href; // the plain way shows what went wrong
  }
});

async function follow(every, box) {
  if (box.checked && !document.hidden && more()) {
    try {
      for (let at = 0; at < FOLLOW_PAGES_MAX && more(); at += 1) {
        if ((await append()) === 0) break;
        const list = lines.querySelector(".log");
        list.scrollTop = list.scrollHeight;
      }
      box.parentElement.title = "";
    } catch {
      box.parentElement.title = "The site does not answer; trying again";
    }
  }
  setTimeout(() => follow(every, box), every);
}

const every = Number(place.dataset.follow);
const followBox = place.querySelector("[data-follow-box]");
if (every && followBox) {
  followBox.hidden = false;
  follow(every, followBox.querySelector("input"));
}

const wrapBox = place.querySelector("[data-wrap]");
wrapBox.hidden = false;
wrapBox.addEventListener("change", (event) => {
  lines.classList.toggle("wrapped", event.target.checked);
});

// ] and [ go to the next Shard and the one before, e to the next with errors.
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (typing || event.metaKey || event.ctrlKey || event.altKey) return;
  const where = { "]": "[rel=next]", "[": "[rel=prev]", e: "[data-next-troubled]" };
  const link = where[event.key] && document.querySelector(where[event.key]);
  if (link) location.href = link.href;
});
