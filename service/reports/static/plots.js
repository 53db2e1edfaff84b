// Draws the figures of the page, in the reader's colour scheme, and again when the page says that there are others.
(function () {
  "use strict";
  function paint(value, style) {
    if (typeof value === "string") {
      return value.slice(0, 2) === "--" ? style.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) { return value.map(function (item) { return paint(item, style); }); }
    if (value && typeof value === "object") {
      var out = {};
      Object.keys(value).forEach(function (key) { out[key] = paint(value[key], style); });
      return out;
    }
    return value;
  }
  function draw() {
    var source = document.getElementById("figures");
    if (!source) { return; }
    var figures = JSON.parse(source.textContent), style = getComputedStyle(document.documentElement);
    Object.keys(figures).forEach(function (id) {
      var figure = paint(figures[id], style);
      Plotly.react(id, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    });
  }
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("figures", draw);
})();
