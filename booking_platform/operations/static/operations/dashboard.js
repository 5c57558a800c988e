"use strict";

// A bar leads to the list behind it, as the table below the chart does for the keyboard.
// What Chart.js writes has the colour of the page's text, in whichever theme it is.
window.addEventListener("load", () => {
  const charts = [...document.querySelectorAll("canvas[data-urls]")].map((canvas) => [
    Chart.getChart(canvas),
    JSON.parse(canvas.dataset.urls),
  ]);
  for (const [chart, urls] of charts) {
    chart.options.onClick = (event) => {
      const [bar] = chart.getElementsAtEventForMode(event, "nearest", { intersect: true }, false);
      if (bar) {
        window.location.assign(urls[bar.datasetIndex][bar.index]);
      }
    };
    chart.options.onHover = (event) => {
      const over = chart.getElementsAtEventForMode(event, "nearest", { intersect: true }, false);
      event.native.target.style.cursor = over.length ? "pointer" : "default";
    };
  }
  const recolour = () => {
    const colour = getComputedStyle(document.querySelector(".dashboard")).color;
    for (const [chart] of charts) {
      chart.options.plugins.legend.labels.color = colour;
      chart.options.scales.x.ticks.color = colour;
      chart.options.scales.y.ticks.color = colour;
      chart.update();
    }
  };
  recolour();
  new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["class"] });
});
