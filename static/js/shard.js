// The log of a Shard: its viewer, its own find, errors, addresses of lines, following.
import { plain } from "./ansi.js";
import { LogView } from "./log_view.js";

const FIND_DELAY_MS = 200;
const place = document.querySelector("[data-log]");

function viewer() {
  const form = place.querySelector("form");
  const part = (name) => place.querySelector(`[data-${name}]`);
  const scroller = part("scroller");
  let index = { total: 0, phases: [], errors: [], matches: [], levels: {} };
  let asked = 0;
  let timer = 0;

  const wanted = (more = {}) => {
    const query = new URLSearchParams({ attempt: form.elements.attempt?.value || "0", ...more });
    if (form.elements.level.value) query.set("level", form.elements.level.value);
    return query;
  };
  async function ask(address, query) {
    const answer = await fetch(`${address}?${query}`);
    if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
    return answer.json();
  }
  const view = new LogView(scroller, async (first, limit) => {
    return (await ask(place.dataset.window, wanted({ first, limit }))).lines;
  });

  // What is where; keep: the lines that were read stay (more has come).
  async function look({ keep = false, number = 0 } = {}) {
    const mine = ++asked;
    const q = form.elements.q.value.trim();
    let found;
    try {
      found = await ask(place.dataset.index, wanted({ q, number }));
    } catch {
      if (mine === asked) part("says").textContent = "The log cannot be read now; try again.";
      return;
    }
    if (mine !== asked) return;
    index = found;
    view.query = q;
    if (keep) view.grow(index);
    else view.reset(index);
    show();
    part("none").hidden = index.total > 0;
    scroller.hidden = index.total === 0;
    say();
  }

  function say(at = -1) {
    const matches = index.match_count.toLocaleString("en");
    const where = at >= 0 ? `${(at + 1).toLocaleString("en")} of ${matches}` : `${matches} found`;
    part("says").textContent = form.elements.q.value.trim() ? where : `${index.total.toLocaleString("en")} line${index.total === 1 ? "" : "s"}`;
    part("errors").textContent = `${index.error_count.toLocaleString("en")} error${index.error_count === 1 ? "" : "s"}`;
    for (const button of place.querySelectorAll("[data-go]")) {
      button.disabled = !index[button.dataset.go.split(" ")[0]].length;
    }
  }

  // To the next or the one before, from what was gone to last or is in sight.
  function go(kind, step) {
    const places = index[kind];
    if (!places.length) return;
    const from = view.current >= 0 ? view.current : view.placeInSight() - (step > 0 ? 1 : 0);
    let at = step > 0 ? places.findIndex((one) => one > from) : places.findLastIndex((one) => one < from);
    if (at < 0) at = step > 0 ? 0 : places.length - 1; // round the end
    view.goTo(places[at]);
    if (kind === "matches") say(at);
    else part("says").textContent = `error ${(at + 1).toLocaleString("en")} of ${index.error_count.toLocaleString("en")}`;
  }

  async function toHash() {
    const found = location.hash.match(/^#L(\d+)(?:-L?(\d+))?$/);
    if (!found) return;
    const first = Number(found[1]);
    view.chosen = [first, Number(found[2] ?? first)];
    await look({ keep: true, number: first });
    view.goTo(index.place);
    scroller.scrollIntoView({ block: "nearest" });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go("matches", 1);
  });
  form.elements.q.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      await look({ keep: true });
      view.current = -1;
      if (index.matches.length) go("matches", 1);
      else view.lay();
    }, FIND_DELAY_MS);
  });
  form.elements.q.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      go("matches", -1);
    }
  });
  form.addEventListener("change", (event) => {
    const { name } = event.target;
    if (!["level", "attempt", "wrap"].includes(name)) return;
    const address = new URL(location.href);
    if (name !== "wrap") address.hash = "";
    const value = name === "wrap" && !event.target.checked ? "" : event.target.value;
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
    history.replaceState(null, "", address);
    if (name === "wrap") {
      view.wrap(event.target.checked);
      return;
    }
    view.chosen = null;
    view.current = -1;
    scroller.scrollTop = 0;
    look();
  });
  place.addEventListener("click", (event) => {
    const button = event.target.closest("[data-go]");
    if (button) go(...button.dataset.go.split(" ").map((word, at) => (at ? Number(word) : word)));
    const fold = event.target.closest("[data-fold]");
    if (fold) view.fold(fold.dataset.fold);
    const address = event.target.closest("[data-number]");
    if (address) choose(event, Number(address.dataset.number));
    const line = event.target.closest(".log-line");
    if (line) part("whole").textContent = plain(line.querySelector(".text")?.textContent ?? "");
  });
  // A click gives a line its address, with Shift from the one chosen before to here.
  function choose(event, number) {
    event.preventDefault();
    const from = event.shiftKey && view.chosen ? view.chosen[0] : number;
    view.chosen = [Math.min(from, number), Math.max(from, number)];
    const [first, last] = view.chosen;
    const hash = first === last ? `#L${first}` : `#L${first}-L${last}`;
    history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
    view.lay();
  }
  window.addEventListener("hashchange", toHash);
  document.addEventListener("keydown", (event) => {
    const finding = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f";
    if (!finding || document.activeElement === form.elements.q) return; // twice: the browser's own
    event.preventDefault();
    form.elements.q.focus();
    form.elements.q.select();
  });

  const box = part("follow-box");
  async function follow(every) {
    if (!document.hidden && box.querySelector("input").checked) {
      await look({ keep: true });
      view.toEnd();
    }
    setTimeout(() => follow(every), every);
  }
  // The lines that the page came with stay until the viewer has some of its own.
  function show() {
    if (!part("viewer").hidden) return;
    part("plain").hidden = true;
    part("viewer").hidden = false;
    if (form.elements.wrap.checked) view.wrap(true);
  }
  if (!location.hash.startsWith("#L")) view.blocks.line(0); // while the index is on its way
  look({ keep: true }).then(toHash);
  if (box) follow(Number(place.dataset.follow));
}

if (place) viewer();

// ] and [ go to the next Shard and the one before, e to the next with errors.
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (typing || event.metaKey || event.ctrlKey || event.altKey) return;
  const where = { "]": "[rel=next]", "[": "[rel=prev]", e: "[data-next-troubled]" };
  const link = where[event.key] && document.querySelector(where[event.key]);
  if (link) location.href = link.href;
});
