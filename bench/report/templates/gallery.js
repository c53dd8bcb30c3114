// The gallery of all errors: filters, order, and a batch of tiles at a time.

const BATCH = 24;
const ORDERS = {
  confident: (a, b) => b.probabilities[0] - a.probabilities[0],
  doubtful: (a, b) => a.probabilities[0] - b.probabilities[0],
  far: (a, b) => a.truthProbability - b.truthProbability,
  name: (a, b) => a.file.localeCompare(b.file),
};

function fillSelect(select, page, codes) {
  const counts = new Map();
  for (const code of codes) counts.set(code, (counts.get(code) ?? 0) + 1);
  const present = [...counts.keys()].sort((a, b) => page.names[a].localeCompare(page.names[b]));
  for (const code of present) {
    select.append(element("option", {value: code, textContent: `${page.names[code]} (${counts.get(code)})`}));
  }
}

function makeGallery(page, errors) {
  const part = name => document.getElementById(`gallery-${name}`);
  const [truth, predicted, order, search, more] = ["truth", "predicted", "order", "search", "more"].map(part);
  let found = [];
  let shown = 0;
  const text = error => [error.file, page.names[error.truth], page.labels[error.truth],
    page.names[error.predicted], page.labels[error.predicted]].join(" ").toLowerCase();
  const showMore = () => {
    const batch = found.slice(shown, shown + BATCH);
    part("tiles").append(...batch.map(error => errorTile(page, error)));
    shown += batch.length;
    more.hidden = shown >= found.length;
    part("status").textContent = `${shown} of ${found.length} ${found.length === 1 ? "error" : "errors"} shown`;
  };
  const update = () => {
    const word = search.value.trim().toLowerCase();
    found = errors.filter(error => (truth.value === "" || error.truth === Number(truth.value))
      && (predicted.value === "" || error.predicted === Number(predicted.value))
      && (word === "" || text(error).includes(word)));
    found.sort(ORDERS[order.value]);
    part("tiles").replaceChildren();
    shown = 0;
    showMore();
  };
  const choose = (trueCode, predictedCode) => {
    [truth.value, predicted.value, search.value] = [trueCode ?? "", predictedCode ?? "", ""];
    update();
  };
  fillSelect(truth, page, errors.map(error => error.truth));
  fillSelect(predicted, page, errors.map(error => error.predicted));
  for (const control of [truth, predicted, order]) control.addEventListener("change", update);
  search.addEventListener("input", update);
  more.addEventListener("click", showMore);
  part("reset").addEventListener("click", () => { order.value = "confident"; choose(); });
  part("controls").hidden = false;
  update();
  return choose;
}
