"use strict";
const charts = JSON.parse(document.getElementById("charts").textContent);
const slice = document.getElementById("slice");
const PRINTED_WIDTH = 680;
const LETTER_WIDTH = 7;
const VERSION_WIDTH = 28;

/** Without its middle, since names often differ at their ends. An entity is one letter. */
function shortened(name, most) {
  const letters = name.match(/&\w+;|./gu) || [];
  if (letters.length <= most) return name;
  const end = Math.floor((most - 1) / 2);
  return letters.slice(0, most - 1 - end).join("") + "…" + letters.slice(-end).join("");
}

/** The layout for the room there is: fewer spans and versions are named, and columns shorter. */
function fitted(layout, width) {
  const narrow = width <= 600;
  const { xaxis, yaxis, margin, annotations = [] } = layout;
  const left = narrow ? (yaxis.ticktext ? 108 : 44) : margin.l;
  const room = width - left - margin.r;
  const spans = Object.values(xaxis.labelalias);
  const letters = Math.max(...spans.map((span) => span.length));
  const every = Math.ceil((annotations.length * VERSION_WIDTH) / room);
  return {
    ...layout,
    width,
    margin: { ...margin, l: left },
    xaxis: { ...xaxis, dtick: Math.ceil((spans.length * (letters * LETTER_WIDTH + 5)) / room) },
    yaxis: {
      ...yaxis,
      ticktext: yaxis.ticktext?.map((name) => shortened(name, narrow ? 12 : 22)),
    },
    annotations: annotations.filter((_, number) => number % every === 0),
  };
}

function draw(width) {
  for (const [id, figures] of Object.entries(charts)) {
    const element = document.getElementById(id);
    const figure = figures[slice.value] || figures[0];
    const layout = fitted(figure.layout, width || element.clientWidth);
    Plotly.react(element, figure.data, layout, { displayModeBar: false });
  }
}

draw();
slice.addEventListener("change", () => draw());
addEventListener("resize", () => draw());
addEventListener("beforeprint", () => draw(PRINTED_WIDTH));
addEventListener("afterprint", () => draw());
document.getElementById("decisions").on("plotly_click", (event) => {
  location.hash = event.points[0].customdata;
});
