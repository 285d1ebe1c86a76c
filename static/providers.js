// Pages of providers: which field of a credential is asked for, and the chart of probes.

import { forgetColours, sampleOf, styleOf } from "./live-charts.js";
import { dayAndTime, duration, durationTick } from "./live-format.js";

// Only the field of the chosen place is shown. Without this script both are, and the place decides.
const startCredential = (form) => {
  const fieldOf = (name) => form.querySelector(`[name=${name}]`)?.closest(".field");
  const show = () => {
    const place = form.querySelector("[name=place]:checked")?.value;
    fieldOf("secret").hidden = place !== "kept";
    fieldOf("env_var").hidden = place !== "environment";
  };
  form.addEventListener("change", show);
  show();
};
document.querySelectorAll("[data-credential]").forEach(startCredential);

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const us = (ms) => (ms === null ? null : ms * 1000);

const options = () => ({
  animation: false,
  responsive: true,
  maintainAspectRatio: false,
  interaction: { mode: "index", intersect: false },
  scales: {
    x: { border: { display: false }, grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 16 } },
    y: { beginAtZero: true, border: { display: false }, grid: { drawTicks: false }, ticks: { callback: durationTick, maxTicksLimit: 5, padding: 6 } },
  },
  plugins: {
    colors: { enabled: false },
    legend: { display: false },
    tooltip: {
      padding: 10,
      boxPadding: 6,
      cornerRadius: 6,
      borderWidth: 1,
      callbacks: { label: ({ dataset: { label }, raw }) => ` ${label}: ${duration(raw)}` },
    },
  },
});

const dataset = ({ label, data }, place) => {
  const style = styleOf(place);
  return {
    label,
    data: data.map(us),
    property: style.property,
    borderDash: style.dash,
    pointStyle: style.point,
    pointRadius: 2.5,
    borderWidth: 1.75,
    spanGaps: false,
  };
};

const colour = (chart) => {
  for (const scale of Object.values(chart.options.scales)) {
    scale.ticks.color = token("--ink-faint");
    scale.ticks.font = { family: token("--font-ui"), size: 11 };
  }
  chart.options.scales.y.grid.color = token("--line");
  Object.assign(chart.options.plugins.tooltip, {
    backgroundColor: token("--surface-raised"),
    borderColor: token("--line-strong"),
    titleColor: token("--ink-soft"),
    bodyColor: token("--ink"),
  });
  for (const each of chart.data.datasets) each.borderColor = each.backgroundColor = token(each.property);
  chart.update("none");
};

const showLegend = (legend, lines) => {
  legend.replaceChildren(...lines.map(({ label }, place) => {
    const item = document.createElement("span");
    item.className = "legend-item";
    item.append(sampleOf(styleOf(place)), label);
    return item;
  }));
};

const startChart = (canvas) => {
  const drawn = JSON.parse(document.getElementById("probe-figures").textContent);
  const lines = [
    { label: gettext("Average"), data: drawn.avg },
    { label: gettext("Shortest"), data: drawn.min },
    { label: gettext("Longest"), data: drawn.max },
  ];
  const chart = new Chart(canvas, { type: "line", data: { labels: drawn.at.map(dayAndTime), datasets: lines.map(dataset) }, options: options() });
  showLegend(document.getElementById("probe-legend"), lines);
  colour(chart);
  document.addEventListener("penstock:theme", () => {
    forgetColours();
    colour(chart);
  });
};
const canvas = document.getElementById("probe-chart");
if (canvas) startChart(canvas);
