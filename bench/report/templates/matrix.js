// The confusion matrix: names under the pointer, photos on a click, all of it by keyboard as well.

const SVG = "http://www.w3.org/2000/svg";
const LABEL = 120;  // pixels for the names of classes
const MOST_LABELLED = 60;
const LEAST_LABELLED = 9;  // pixels of a cell beside a name that can be read

function shape(parent, name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

function shortName(name, most = 18) {
  const letters = [...name];
  return letters.length <= most ? name : letters.slice(0, most - 1).join("") + "\u2026";
}

function matrixLayout(k, width) {
  const labelled = k <= MOST_LABELLED || (width - LABEL - 16) / k >= LEAST_LABELLED;
  const margin = labelled ? LABEL : 4;
  const least = k <= MOST_LABELLED ? 13 : 7;
  const cell = Math.max(least, Math.min(34, Math.floor((width - margin - 16) / k)));
  return {k, cell, margin, labelled, side: margin + k * cell + 1};
}

function drawMatrix(page, layout) {
  const {k, cell, margin, side} = layout;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", side);
  svg.setAttribute("height", side);
  svg.setAttribute("aria-hidden", "true");
  shape(svg, "rect", {class: "frame", x: margin, y: margin, width: k * cell, height: k * cell});
  const place = new Map(page.order.map((code, i) => [code, i]));
  for (const [truth, predicted, count] of page.cells) {
    const [x, y] = [margin + place.get(predicted) * cell, margin + place.get(truth) * cell];
    // The square root lifts single errors out of the background.
    const opacity = 0.15 + 0.85 * Math.sqrt(count / page.tests[truth]);
    shape(svg, "rect", {class: truth === predicted ? "hit" : "miss", x, y, width: cell, height: cell,
                        "fill-opacity": opacity.toFixed(3)});
    const kind = opacity > 0.6 ? "count strong" : "count";
    if (cell >= 20) shape(svg, "text", {class: kind, x: x + cell / 2, y: y + cell / 2 + 4}, count);
  }
  if (layout.labelled) {
    const size = Math.min(11, cell);
    page.order.forEach((code, i) => {
      const middle = margin + (i + 0.5) * cell + size / 3;
      const name = shortName(page.names[code]);
      shape(svg, "text", {x: margin - 5, y: middle, "text-anchor": "end", "font-size": size}, name);
      shape(svg, "text", {transform: `translate(${middle} ${margin - 5}) rotate(-90)`, "font-size": size}, name);
    });
  }
  return svg;
}

function cellWords(page, truth, predicted, count) {
  const tests = page.tests[truth];
  const images = tests === 1 ? "image" : "images";
  const verb = truth === predicted ? "predicted correctly" : `predicted as ${page.names[predicted]}`;
  return `${page.names[truth]}: ${count} of ${tests} ${images} ${verb}`;
}

function makeMatrix(page, errors) {
  const box = document.getElementById("matrix");
  const [status, photos] = ["matrix-status", "matrix-photos"].map(id => document.getElementById(id));
  const counts = new Map(page.cells.map(([t, p, n]) => [`${t} ${p}`, n]));
  const wrong = page.cells.filter(([t, p]) => t !== p);
  const layout = matrixLayout(page.order.length, box.parentElement.parentElement.clientWidth);
  const svg = drawMatrix(page, layout);
  const tip = element("div", {id: "matrix-tip", hidden: true});
  box.append(svg);
  document.body.append(tip);
  const {k, cell, margin} = layout;
  const full = k * cell;
  const lines = [shape(svg, "rect", {class: "line", x: margin, width: full, height: cell}),
                 shape(svg, "rect", {class: "line", y: margin, width: cell, height: full})];
  const cursor = shape(svg, "rect", {class: "cursor", width: cell, height: cell});
  let [row, column] = [0, 0];
  const words = () => {
    const [truth, predicted] = [page.order[row], page.order[column]];
    return cellWords(page, truth, predicted, counts.get(`${truth} ${predicted}`) ?? 0);
  };
  const move = (r, c) => {
    [row, column] = [r, c].map(v => Math.max(0, Math.min(k - 1, v)));
    const [x, y] = [margin + column * cell, margin + row * cell];
    lines[0].setAttribute("y", y);
    lines[1].setAttribute("x", x);
    cursor.setAttribute("x", x);
    cursor.setAttribute("y", y);
    for (const mark of [...lines, cursor]) mark.removeAttribute("visibility");
  };
  const open = () => {
    const [truth, predicted] = [page.order[row], page.order[column]];
    const chosen = errors.filter(error => error.truth === truth && error.predicted === predicted);
    photos.replaceChildren(...chosen.map(error => errorTile(page, error)));
    const note = truth === predicted ? " The page holds photos of errors only." : "";
    status.textContent = `${words()}.${note}`;
  };
  const at = event => {
    const area = svg.getBoundingClientRect();
    const [c, r] = [event.clientX - area.left, event.clientY - area.top].map(v => Math.floor((v - margin) / cell));
    return r >= 0 && c >= 0 && r < k && c < k ? [r, c] : null;
  };
  const jump = step => {
    // The next error in reading order, so that nobody has to walk over thousands of empty cells.
    const place = new Map(page.order.map((code, i) => [code, i]));
    const all = wrong.map(([t, p]) => place.get(t) * k + place.get(p)).sort((a, b) => a - b);
    const here = row * k + column;
    const next = step > 0 ? all.find(i => i > here) : all.findLast(i => i < here);
    if (next !== undefined) move(Math.floor(next / k), next % k);
  };
  svg.addEventListener("pointermove", event => {
    const found = at(event);
    tip.hidden = found === null;
    if (found === null) return;
    move(...found);
    tip.textContent = words();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 18, innerHeight - tip.offsetHeight - 4))}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("click", event => {
    const found = at(event);
    if (found === null) return;
    move(...found);
    open();
  });
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  box.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) move(row + steps[event.key][0], column + steps[event.key][1]);
    else if (event.key === "PageDown") jump(1);
    else if (event.key === "PageUp") jump(-1);
    else if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    cursor.scrollIntoView({block: "nearest", inline: "nearest"});
    if (event.key === "Enter" || event.key === " ") open();
    else status.textContent = `${words()}.`;
  });
  for (const mark of [...lines, cursor]) mark.setAttribute("visibility", "hidden");
}
