// Draws each figure in the pages' style, in the colours of the style sheet, and again when these change.
const styles = {
  candidate: ["--model", "solid", "circle"], baseline: ["--champion", "dash", "diamond"],
  heuristic: ["--heuristic", "dot", "square"], logged: ["--model", "dot", "circle-open"],
  previous: ["--heuristic", "dash", "x"], limit: ["--bad", "dash", "line-ns"], rule: ["--muted", "dot", "circle"],
  keep: ["--good", "solid", "circle"], retrain: ["--champion", "solid", "triangle-up"],
  roll_back: ["--heuristic", "solid", "triangle-left"], investigate: ["--bad", "solid", "diamond"],
};
const draw = () => {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), zeroline: false, automargin: true, title: { standoff: 8, font: { size: 13 } } };
  const layout = {
    margin: { l: 8, r: 8, t: 8, b: 8 }, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { family: "system-ui, sans-serif", size: 13, color: colour("--muted") }, xaxis: axis, yaxis: axis,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, shapedefaults: { line: { color: colour("--muted"), width: 1, dash: "dot" } },
    annotationdefaults: { showarrow: false, xanchor: "left", yanchor: "top", xshift: 4 },
  };
  for (const place of document.querySelectorAll(".plot")) {
    const figure = JSON.parse(place.nextElementSibling.textContent);
    for (const trace of figure.data) {
      const [name, dash, symbol] = styles[trace.meta] || styles.rule;
      trace.line = { color: colour(name), dash, width: trace.meta === "rule" ? 1 : 2, ...trace.line };
      trace.marker = { color: colour(name), symbol, size: 8, ...trace.marker };
    }
    if (place.clientWidth < 600 && figure.layout.yaxis.ticktext) figure.layout.yaxis.ticklabelposition = "inside top";
    Plotly.react(place, figure.data, { ...figure.layout, template: { layout } }, { responsive: true, displayModeBar: false });
  }
};
draw();
for (const medium of ["print", "(prefers-color-scheme: dark)"]) matchMedia(medium).addEventListener("change", draw);
