// Starts what the page has.

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".controls[data-for]").forEach(makeSearchable);
const page = JSON.parse(document.getElementById("page-data").textContent);
if (document.getElementById("matrix")) {
  const errors = readErrors(page);
  makeMatrix(page, errors);
  const choose = makeGallery(page, errors);
  document.addEventListener("click", event => {
    const link = event.target.closest("a[data-truth]");
    if (!link) return;
    choose(link.dataset.truth, link.dataset.predicted);
    // The link itself moves to the gallery; the focus follows for the keyboard.
    document.getElementById("gallery").focus({preventScroll: true});
  });
}
