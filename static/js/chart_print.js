// On paper a chart is as wide as the page and dark on white, whatever the screen has.
const PAPER_PX = 680; // what A4 and Letter have between the margins of print.css

// redraw(width): all that is drawn, at once; 0: as wide as there is room on the screen.
export function onPaper(redraw) {
  const turn = (on) => {
    document.documentElement.classList.toggle("on-paper", on);
    redraw(on ? PAPER_PX : 0);
  };
  window.addEventListener("beforeprint", () => turn(true));
  window.addEventListener("afterprint", () => turn(false));
}
