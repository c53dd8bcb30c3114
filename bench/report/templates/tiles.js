// Tiles of photos that were predicted as another class. Text is never parsed as markup.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A long file name may break behind a slash or an underscore.
function breakable(text) {
  return text.split(/(?<=[/_])/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

function className(page, code) {
  return element("span", {title: page.labels[code]}, ...breakable(page.names[code]));
}

function predictionLine(page, error, code, probability, first) {
  const kind = code === error.truth ? "right" : first ? "wrong" : "";
  const name = element("span", {className: kind}, className(page, code));
  const percent = element("span", {textContent: `${Math.round(100 * probability)} %`});
  return element("span", {className: "prediction"}, name, percent);
}

function errorTile(page, error) {
  const picture = error.image
    ? element("img", {src: page.gallery.start + error.image, alt: `A photo of ${page.names[error.truth]}`,
                      loading: "lazy"})
    : element("div", {className: "missing",
                      textContent: error.image === null ? "Photo left out" : "The photo cannot be read."});
  const lines = error.codes.map((code, i) => predictionLine(page, error, code, error.probabilities[i], i === 0));
  if (!error.codes.includes(error.truth)) {
    lines.push(predictionLine(page, error, error.truth, error.truthProbability, false));
  }
  const file = element("code", {className: "file"}, ...breakable(error.file));
  const words = element("div", {}, element("b", {}, className(page, error.truth)), ...lines, file);
  return element("div", {className: "tile"}, picture, words);
}

function readErrors(page) {
  return page.gallery.errors.map(([file, truth, truthProbability, codes, probabilities, image]) =>
    ({file, truth, truthProbability, codes, probabilities, image, predicted: codes[0]}));
}
