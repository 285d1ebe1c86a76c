// The palette as a chart draws it, in the colours of the theme that is on.

const canvas = document.getElementById("palette");
const series = JSON.parse(document.getElementById("series").textContent);
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const chart = new Chart(canvas, {
  data: {
    labels: series,
    datasets: [
      { type: "line", data: series.map((_, place) => 6 + 3 * Math.sin(place)), borderWidth: 1.75, borderDash: [6, 3], pointRadius: 2.5 },
      { type: "bar", data: series.map((_, place) => 12 - place), maxBarThickness: 64 },
    ],
  },
  options: {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    events: [],
    plugins: { legend: { display: false }, tooltip: { enabled: false }, colors: { enabled: false } },
    scales: {
      x: { border: { display: false }, grid: { display: false } },
      y: { border: { display: false }, grid: { drawTicks: false }, beginAtZero: true, ticks: { maxTicksLimit: 5 } },
    },
  },
});

const colour = () => {
  const [line, bars] = chart.data.datasets;
  bars.backgroundColor = series.map(token);
  line.borderColor = line.backgroundColor = token("ink-soft");
  for (const scale of Object.values(chart.options.scales)) scale.ticks = { ...scale.ticks, color: token("ink-faint"), font: { family: token("font-ui"), size: 11 } };
  chart.options.scales.y.grid.color = token("line");
  chart.update("none");
};

colour();
document.addEventListener("penstock:theme", colour);
