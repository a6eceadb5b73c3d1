// What all scripts of a report share: its values, times and lengths in words, charts that follow
// the theme, the width and the printer.
const tocsin = (() => {
  "use strict";
  const values = JSON.parse(document.getElementById("values").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const LEVELS = values.levels;
  const DAY = 86400000;

  const pad = (n, width = 2) => String(n).padStart(width, "0");
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const place = (ms) => new Date(ms + values.offset);
  const date = (ms) => {
    const d = place(ms);
    return `${d.getUTCFullYear()}-${pad(d.getUTCMonth() + 1)}-${pad(d.getUTCDate())}`;
  };
  const clock = (ms, seconds = true) => {
    const d = place(ms);
    const end = seconds ? `:${pad(d.getUTCSeconds())}` : "";
    return `${pad(d.getUTCHours())}:${pad(d.getUTCMinutes())}${end}`;
  };
  const moment = (ms, seconds = true) => `${date(ms)} ${clock(ms, seconds)}`;
  const lasting = (ms) => {
    let rest = Math.round(ms / 1000);
    const parts = [];
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
      if (rest >= size) { parts.push(`${Math.floor(rest / size)} ${unit}`); rest %= size; }
    }
    return parts.slice(0, 2).join(" ") || "0 s";
  };
  const number = (x) => (Math.abs(x) < 1000 ? String(+x.toPrecision(4)) : x.toLocaleString("en"));
  const percent = (x) => `${+(100 * x).toPrecision(3)} %`;
  const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  const esc = (text) => String(text).replace(/[&<>"']/g, (c) => ESCAPES[c]);
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  // An axis of time has its labels in the place's zone: ECharts is given times moved by the offset.
  const axisTime = (ms, span) => {
    const d = new Date(ms);
    const day = `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]}`;
    if (span > 300 * DAY) return `${MONTHS[d.getUTCMonth()]} ${d.getUTCFullYear()}`;
    if (span > 4 * DAY) return day;
    const time = `${pad(d.getUTCHours())}:${pad(d.getUTCMinutes())}`;
    if (d.getUTCHours() === 0 && d.getUTCMinutes() === 0 && d.getUTCSeconds() === 0) return day;
    return span < 600000 ? `${time}:${pad(d.getUTCSeconds())}` : time;
  };

  let colours = {};
  const look = () => {
    const style = getComputedStyle(root);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    colours = {
      text: of("text"), soft: of("soft"), line: of("line"), panel: of("panel"), plot: of("plot"),
      accent: of("accent"), shade: of("shade"), cold: of("cold"), hot: of("hot"),
      incident: of("incident"), flood: of("flood"),
      level: ["transparent", of("blue"), of("yellow"), of("orange"), of("red")],
    };
    return colours;
  };
  look();
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Arial, sans-serif";

  const tooltip = () => ({
    confine: true,
    backgroundColor: colours.panel,
    borderColor: colours.line,
    textStyle: { color: colours.text, fontSize: 12, fontFamily: font },
    extraCssText: "box-shadow:0 2px 10px rgba(0,0,0,.25);max-width:min(420px,90vw);white-space:normal",
  });
  const row = (mark, name, value) =>
    `<div class="tip">${mark}<span>${esc(name)}</span><b>${esc(value)}</b></div>`;
  const dot = (colour) => `<i style="background:${colour}"></i>`;

  // Charts are drawn when they come near the screen, and all of them for the printer.
  const charts = new Map();
  const draw = (box) => {
    const chart = charts.get(box);
    chart.drawn = chart.drawn || echarts.init(box, null, { renderer: "svg" });
    chart.drawn.setOption({ textStyle: { fontFamily: font }, animation: false, ...chart.option() }, true);
  };
  const near = new IntersectionObserver(
    (seen) => {
      for (const each of seen) {
        if (each.isIntersecting && !charts.get(each.target).drawn) draw(each.target);
      }
    },
    { rootMargin: "600px" },
  );
  const add = (box, option) => { charts.set(box, { option, drawn: null }); near.observe(box); };
  const redraw = () => {
    look();
    for (const [box, chart] of charts) if (chart.drawn) draw(box);
  };
  let printing = false;
  let resting = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    clearTimeout(resting);
    resting = setTimeout(() => {
      if (printing || innerWidth === width) return;
      width = innerWidth;
      for (const [box, chart] of charts) if (chart.drawn) { chart.drawn.resize(); draw(box); }
    }, 120);
  });

  const PAPER_PX = 690; // between the margins of A4 and of Letter
  const paperWidth = (box) => +box.dataset.paper || PAPER_PX;
  let before = null;
  const paper = (on) => {
    if (on === printing) return;
    printing = on;
    if (on) {
      before = root.dataset.theme;
      root.dataset.theme = "light";
    } else {
      root.dataset.theme = before;
    }
    look();
    for (const [box, chart] of charts) {
      if (!on && !chart.drawn) continue;
      chart.drawn = chart.drawn || echarts.init(box, null, { renderer: "svg", width: paperWidth(box) });
      chart.drawn.resize({ width: on ? paperWidth(box) : "auto" });
      draw(box);
    }
  };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));

  const button = byId("theme");
  const name = () => {
    const dark = root.dataset.theme === "dark";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark ? "light" : "dark"} colours`);
  };
  name();
  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    root.dataset.theme = theme;
    try { localStorage.setItem("tocsin-theme", theme); } catch { /* it holds for this page */ }
    name();
    redraw();
  });
  addEventListener("tocsin-theme", () => { name(); redraw(); });
  byId("print").addEventListener("click", () => print());

  // A chart's numbers as a table, made when somebody opens it.
  const tables = new Map();
  for (const details of document.querySelectorAll("details.alt")) {
    details.addEventListener("toggle", () => {
      const make = tables.get(details.dataset.of);
      if (!details.open || details.childElementCount > 1 || !make) return;
      const { heads, rows } = make();
      const body = rows.map((cells) =>
        element("tr", {}, ...cells.map((cell, i) => element("td", i ? { class: "n" } : {}, String(cell)))));
      details.append(element("div", { class: "scroll", tabindex: "0" }, element("table", {},
        element("thead", {}, element("tr", {}, ...heads.map((head, i) =>
          element("th", { scope: "col", class: i ? "n" : "" }, head)))),
        element("tbody", {}, ...body))));
    });
  }

  const narrow = () => (printing ? PAPER_PX : innerWidth) < 640;
  return {
    values, LEVELS, byId, element, esc, add, tables, tooltip, row, dot, axisTime, narrow, charts,
    moment, clock, date, lasting, number, percent, colours: () => colours, draw,
  };
})();
