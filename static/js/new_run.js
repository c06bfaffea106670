// The estimate beside the form, asked anew while the operator types.
const DELAY_MS = 250;
const form = document.querySelector("[data-estimate]");
const here = document.querySelector("[data-estimate-here]");
let timer = 0;
let asked = 0;

async function estimate() {
  const mine = ++asked;
  const fields = new URLSearchParams(new FormData(form));
  fields.delete("csrfmiddlewaretoken");
  fields.delete("preset_name");
  try {
    const answer = await fetch(`${form.dataset.estimate}?${fields}`);
    if (answer.ok && mine === asked) here.innerHTML = await answer.text();
  } catch {
    here.textContent = "The site does not answer; the estimate is missing.";
  }
}

function showLoadFields() {
  const shape = form.elements.load_shape.value;
  const needed = {
    stagger_ms: shape === "staggered",
    load_steps: shape === "staircase",
    load_step_s: shape === "staircase",
  };
  for (const [name, shown] of Object.entries(needed)) {
    form.querySelector(`.field.${name}`).hidden = !shown;
  }
  const provider = form.elements.provider.value;
  const ours = provider === "sim" || provider === "local";
  const standIn = form.elements.endpoint.value.trim() === "simcloud";
  form.querySelector(".field.world").hidden = provider !== "sim" && !standIn;
  form.querySelector(".field.endpoint").hidden = ours;
  form.querySelector(".field.credential").hidden = ours || standIn;
}

// One sandbox through its whole life; what comes back says every step.
const button = form.querySelector("[data-preflight-button]");
const flown = form.querySelector("[data-preflight-here]");
button.addEventListener("click", async () => {
  button.disabled = true;
  flown.textContent = "One sandbox is being created, asked, destroyed: some seconds, 180 at most …";
  try {
    const answer = await fetch(form.dataset.preflight, { method: "POST", body: new FormData(form) });
    if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
    flown.innerHTML = await answer.text();
  } catch {
    flown.textContent = "The site does not answer; nothing is known of the preflight.";
  }
  button.disabled = false;
  flown.scrollIntoView({ block: "nearest" });
});

form.addEventListener("input", () => {
  showLoadFields();
  clearTimeout(timer);
  timer = setTimeout(estimate, DELAY_MS);
});
showLoadFields();
estimate();
