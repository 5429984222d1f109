// Votes: one pair at a time; answers are kept on the page until they are saved as a table.

const trials = [...document.querySelectorAll(".trial")];
const rater = document.getElementById("rater");
let at = 0;

function turnTo(index) {
  at = Math.min(Math.max(index, 0), trials.length - 1);
  trials.forEach((trial, place) => { trial.hidden = place !== at; });
  tell();
  showSeen();
}

function votes() {
  const rows = [];
  for (const trial of trials) {
    for (const input of trial.querySelectorAll("input:checked")) {
      rows.push([document.body.dataset.digest, rater.value, trial.dataset.trial, input.dataset.question, input.value]);
    }
  }
  return rows;
}

function tell() {
  const needed = 2 * trials.length;
  document.getElementById("progress").textContent =
    `Pair ${at + 1} of ${trials.length}; ${votes().length} of ${needed} questions answered.`;
}

function asTable(rows) {
  const quoted = value => `"${String(value).replaceAll('"', '""')}"`;
  return [["sheet", "rater", "trial", "question", "choice"], ...rows].map(row => row.map(quoted).join(",")).join("\n") + "\n";
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([asTable(votes())], { type: "text/csv" }));
  link.download = `votes-${rater.value.replace(/[^A-Za-z0-9]+/g, "-") || "anonymous"}.csv`;
  link.click();
}

document.getElementById("before").addEventListener("click", () => turnTo(at - 1));
document.getElementById("next").addEventListener("click", () => turnTo(at + 1));
document.getElementById("save").addEventListener("click", save);
document.addEventListener("change", tell);
addEventListener("keydown", event => {
  if (event.target === rater || event.ctrlKey || event.metaKey || event.altKey) return;
  const inputs = trials[at].querySelectorAll("input");
  if (/^[1-6]$/.test(event.key)) {
    inputs[Number(event.key) - 1].checked = true;
    tell();
  } else if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    turnTo(at + 1);
  } else if (event.key === "Backspace") {
    turnTo(at - 1);
  }
});
// Unsaved answers are lost with the page.
addEventListener("beforeunload", event => { if (votes().length) event.preventDefault(); });
turnTo(0);
