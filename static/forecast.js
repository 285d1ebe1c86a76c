// The month as a line, and where it goes. Its figures come with the page, and again when it is asked otherwise.

import { moneyIn } from "./live-format.js";

const language = document.documentElement.lang || undefined;
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", timeZone: "UTC" });
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const datasetsOf = ({ so_far, expected, low, high }) => {
  const ink = token("--series-1");
  const line = { borderColor: ink, backgroundColor: ink, borderWidth: 2, pointRadius: 0, pointHitRadius: 8 };
  const edge = { ...line, borderWidth: 0, backgroundColor: `${ink}2e` }; // tokens are written #rrggbb: this is 18 % of one
  return [
    { ...line, label: gettext("running cost"), data: so_far },
    { ...line, label: gettext("expected"), data: expected, borderDash: [6, 4] },
    { ...edge, label: gettext("at least"), data: low },
    { ...edge, label: gettext("at most"), data: high, fill: "-1" },
  ];
};

const optionsOf = (money, days) => {
  const ticks = { color: token("--ink-faint"), font: { family: token("--font-ui"), size: 11 } };
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    scales: {
      x: { border: { display: false }, grid: { display: false }, ticks: { ...ticks, maxRotation: 0, autoSkipPadding: 16, callback: (_, place) => days[place] } },
      y: { beginAtZero: true, border: { display: false }, grid: { color: token("--line"), drawTicks: false }, ticks: { ...ticks, callback: money, maxTicksLimit: 5, padding: 6 } },
    },
    plugins: {
      colors: { enabled: false }, // Chart.js would choose its own
      legend: { display: false },
      tooltip: {
        padding: 10, boxPadding: 6, cornerRadius: 6, borderWidth: 1,
        backgroundColor: token("--surface-raised"), borderColor: token("--line-strong"),
        titleColor: token("--ink-soft"), bodyColor: token("--ink"),
        callbacks: { title: ([item]) => days[item.dataIndex], label: ({ dataset, raw }) => ` ${dataset.label}: ${money(raw)}` },
      },
    },
  };
};

let made;

const redraw = () => {
  made?.destroy();
  const found = document.getElementById("month-chart");
  made = found && draw(JSON.parse(found.textContent));
};

const draw = (month) => {
  const money = moneyIn(document.getElementById("money").dataset.currency);
  const days = month.days.map((each) => day.format(new Date(`${each}T00:00:00Z`)));
  const canvas = document.getElementById("month-canvas");
  return new Chart(canvas, { type: "line", data: { labels: month.days, datasets: datasetsOf(month) }, options: optionsOf(money, days) });
};

redraw();
document.addEventListener("htmx:afterSettle", redraw);
document.addEventListener("penstock:theme", redraw);
