"use strict";
// Frames: one moment for all videos of the page. A sheet holds a case's frames, a row a video and a column a moment.

const sheets = [...document.querySelectorAll(".frames")];
const players = [...document.querySelectorAll(".player")];
const last = players.length ? Number(players[0].querySelector("input").max) : 0;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let moment = 0, timer = 0;

function isSeen(element) {
  const place = element.getBoundingClientRect();
  return place.height > 0 && place.bottom > -innerHeight && place.top < 2 * innerHeight;
}

function draw(sheet) {
  const { width, height, moments } = sheet.dataset;
  const column = last ? Math.round(moment / last * (moments - 1)) : 0;
  for (const canvas of sheet.querySelectorAll("canvas")) {
    const left = canvas.dataset.still === undefined ? column * width : 0;
    const from = [left, canvas.dataset.row * height, canvas.width, canvas.height];
    canvas.getContext("2d").drawImage(sheet.picture, ...from, 0, 0, canvas.width, canvas.height);
  }
  sheet.dataset.drawn = column;
}

// A sheet's picture is loaded when the sheet is first seen.
function show(sheet) {
  if (sheet.picture) {
    if (sheet.picture.complete && sheet.picture.naturalWidth) draw(sheet);
    return;
  }
  sheet.picture = new Image();
  sheet.picture.addEventListener("load", () => draw(sheet));
  sheet.picture.src = sheet.dataset.sheet;
}

function showSeen() {
  for (const sheet of sheets) if (isSeen(sheet)) show(sheet);
}

function go(to) {
  moment = (to + last + 1) % (last + 1);
  for (const player of players) {
    player.querySelector("input").value = moment;
    player.querySelector("output").textContent = `${moment + 1} of ${last + 1}`;
  }
  showSeen();
}

function play(on) {
  clearInterval(timer);
  timer = on ? setInterval(() => go(moment + 1), 1000 / (Number(document.body.dataset.rate) || 8)) : 0;
  for (const button of document.querySelectorAll("[data-do=play]")) button.textContent = on ? "Pause" : "Play";
}

const step = by => { play(false); go(moment + by); };
const deeds = { back: () => step(-1), on: () => step(1), play: () => play(!timer) };
for (const player of players) {
  player.hidden = false;
  for (const button of player.querySelectorAll("button")) button.addEventListener("click", deeds[button.dataset.do]);
  player.querySelector("input").addEventListener("input", event => { play(false); go(Number(event.target.value)); });
}
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("select, textarea, input:not([type=checkbox], [type=radio], [type=range])")) return;
  if (event.key === ",") step(-1);
  if (event.key === ".") step(1);
});
addEventListener("scroll", showSeen, { passive: true });
addEventListener("resize", showSeen);
addEventListener("toggle", showSeen, true);
document.addEventListener("change", showSeen);
addEventListener("beforeprint", () => { play(false); for (const sheet of sheets) if (sheet.offsetParent) show(sheet); });

if (last) {
  // A still page shows a moment at which something moves.
  go(Math.round(2 * last / 3));
  play(!still);
}
