"use strict";
const read = id => JSON.parse(document.getElementById(id).textContent);
const quiet = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]};

const AXES = {
  steps: {title: "step", x: (at, step) => step, format: {tickformat: ","}},
  tokens: {title: "training tokens", x: (at, step) => step * at.tokens, format: {exponentformat: "B"}},
  flops: {title: "FLOPs of training", x: (at, step) => step * at.flops, format: {exponentformat: "power"}},
  hours: {title: "hours of training only", x: (at, step, n) => at.hours[n], format: {exponentformat: "none"}},
};
const NARROW = window.matchMedia("(max-width: 900px)");

function inUnit(axes) {  // short runs are shown in minutes or seconds
  const longest = Math.max(0, ...axes.flatMap(at => at.hours).filter(hours => hours !== null));
  const [unit, size] = longest >= 2 ? ["hours", 1] : longest >= 1 / 30 ? ["minutes", 60] : ["seconds", 3600];
  AXES.hours.title = `${unit} of training only`;
  AXES.hours.x = (at, step, n) => at.hours[n] === null ? null : size * at.hours[n];
}

function belowEachOther(layout) {  // one chart per row, and the legend below
  const [above, below] = [{domain: [0.6, 1]}, {domain: [0, 0.4]}];
  const [first, second] = layout.annotations;
  return {...layout, height: 900, margin: {...layout.margin, l: 60, b: 40},
          legend: {...layout.legend, orientation: "h", x: 0, y: -0.08, yanchor: "top"},
          xaxis: {...layout.xaxis, domain: [0, 1]}, xaxis2: {...layout.xaxis2, domain: [0, 1]},
          yaxis: {...layout.yaxis, ...above}, yaxis2: {...layout.yaxis2, ...below},
          annotations: [{...first, x: 0.5}, {...second, x: 0.5, y: 0.4}]};
}

function drawLoss() {
  const {figure, axes} = read("loss");
  const chart = document.getElementById("loss-chart");
  inUnit(axes);
  const along = name => axes.map(at => at.steps.map((step, n) => AXES[name].x(at, step, n)));
  const look = name => ({title: {text: AXES[name].title, standoff: 8}, autorange: true, tickformat: "", ...AXES[name].format});
  const layout = name => {
    const along = {...figure.layout, xaxis: {...figure.layout.xaxis, ...look(name)},
                   xaxis2: {...figure.layout.xaxis2, ...look(name), matches: "x"}};
    return NARROW.matches ? belowEachOther(along) : along;
  };
  const draw = name => {
    const x = along(name);
    // traces hidden in the legend stay hidden
    const traces = figure.data.map((trace, n) => ({...trace, x: x[n], visible: chart.data ? chart.data[n].visible : trace.visible}));
    return Plotly.react(chart, traces, layout(name), quiet);
  };
  for (const choice of document.querySelectorAll("input[name=axis]")) {
    choice.addEventListener("change", () => draw(choice.value));
  }
  const redraw = () => draw(document.querySelector("input[name=axis]:checked").value);
  NARROW.addEventListener("change", redraw);
  redraw();
}

function drawSurfaces() {
  read("surfaces").forEach((figure, n) => Plotly.newPlot(document.getElementById(`surface-${n}`), figure.data, figure.layout, quiet));
}

function makeSortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.addEventListener("click", () => {  // also of its button, for the keyboard
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows];
    const numbers = rows.every(row => value(row) === "" || !Number.isNaN(Number(value(row))));
    const compare = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", {numeric: true});
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // missing values come last in both directions
      return ascending ? compare(x, y) : compare(y, x);
    });
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
}

function chooseMetric() {
  const choices = document.querySelectorAll("input[name=metric]");
  const show = () => choices.forEach(choice => { document.getElementById(`final-${choice.value}`).hidden = !choice.checked; });
  choices.forEach(choice => choice.addEventListener("change", show));
  if (choices.length) show();
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;  // never as HTML: a model can write anything
  return made;
}

function showSamples() {
  const {runs, steps, shown, prompts} = read("samples");
  const choice = document.getElementById("sample-step"), place = document.getElementById("sample-cards");
  if (!choice) return;
  const show = () => {
    place.replaceChildren();
    for (const {prompt, by_step} of prompts) {
      const answers = by_step[choice.value];
      if (!answers) continue;
      const cards = element("div", "cards", "");
      for (const [run, response] of answers) {
        const card = element("div", "card", "");
        card.append(element("b", "", runs[run]), element("pre", "", response));
        cards.append(card);
      }
      place.append(element("div", "prompt", prompt), cards);
    }
  };
  choice.append(...steps.map(step => new Option(step.toLocaleString("en"), step)));
  choice.value = shown;
  choice.addEventListener("change", show);
  show();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
chooseMetric();
showSamples();
if (document.getElementById("loss-chart")) drawLoss();
drawSurfaces();
