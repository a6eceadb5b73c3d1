// A cloud of settings by two numbers: thousands of points as a few paths, what a pointer is on, what is picked.
const cloud = (() => {
  "use strict";
  const { element, tooltip, colours, charts, esc, row: line } = tocsin;
  const SIZES = [[1, 5], [10, 7.5], [100, 10.5], [Infinity, 14]];
  const REACH = 14;

  // Settings at the same place are one point.
  const places = (rows, x, y) => {
    const found = new Map();
    for (const row of rows) {
      const a = x[row], b = y[row];
      if (Number.isNaN(a) || Number.isNaN(b)) continue;
      const key = `${a}|${b}`;
      const there = found.get(key);
      if (there) there.rows.push(row); else found.set(key, { x: a, y: b, rows: [row], px: 0, py: 0 });
    }
    return [...found.values()];
  };
  const dot = (x, y) => `M${x.toFixed(1)} ${y.toFixed(1)}l.01 0`;
  const cross = (x, y) =>
    `M${(x - 3).toFixed(1)} ${(y - 3).toFixed(1)}l6 6m0 -6l-6 6`;

  // One series whose single item draws every place; its two values are the corners, for the axes.
  const series = (name, all, { crosses = false, colour, opacity = 0.5, z = 2, scale = 1 }) => {
    const xs = all.map((each) => each.x), ys = all.map((each) => each.y);
    const low = (of) => of.reduce((a, b) => Math.min(a, b), Infinity);
    const high = (of) => of.reduce((a, b) => Math.max(a, b), -Infinity);
    return {
      name, type: "custom", silent: true, z, itemStyle: { color: colour }, clip: false,
      data: all.length ? [[low(xs), low(ys)], [high(xs), high(ys)]] : [],
      encode: { x: 0, y: 1 },
      renderItem: (params, api) => {
        if (params.dataIndex) return null;
        const paths = SIZES.map(() => "");
        for (const each of all) {
          [each.px, each.py] = api.coord([each.x, each.y]);
          const size = SIZES.findIndex(([most]) => each.rows.length <= most);
          paths[size] += (crosses ? cross : dot)(each.px, each.py);
        }
        return {
          type: "group",
          children: paths.map((path, size) => path && ({
            type: "path", silent: true, shape: { pathData: path },
            style: { fill: "none", stroke: colour, opacity, lineCap: "round",
              lineWidth: crosses ? 1.5 : SIZES[size][1] * scale },
          })).filter(Boolean),
        };
      },
    };
  };

  // Hover and click of a chart whose places are known once it is drawn.
  const follow = (box, state, words) => {
    const around = box.parentElement;
    const tip = element("div", { class: "floating", hidden: "" });
    const ring = element("i", { class: "ring", hidden: "" });
    around.append(ring, tip);
    const nearest = (x, y) => {
      let best = null, least = REACH * REACH;
      for (const each of state.places) {
        const far = (each.px - x) ** 2 + (each.py - y) ** 2;
        if (far < least) { least = far; best = each; }
      }
      return best;
    };
    const hide = () => { tip.hidden = true; };
    const show = (place) => {
      tip.innerHTML = words(place);
      tip.hidden = false;
      const room = around.clientWidth, width = tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(place.px + 14, room - width))}px`;
      const above = place.py - tip.offsetHeight - 12;
      tip.style.top = `${above < 0 ? place.py + 16 : above}px`;
    };
    const at = (event) => {
      const edge = box.getBoundingClientRect();
      return nearest(event.clientX - edge.left, event.clientY - edge.top);
    };
    box.addEventListener("pointermove", (event) => {
      const place = at(event);
      box.style.cursor = place ? "pointer" : "";
      if (place) show(place); else hide();
    });
    box.addEventListener("pointerleave", hide);
    box.addEventListener("click", (event) => {
      const place = at(event);
      if (place) study.pick(best(place.rows));
    });
    const circle = () => {
      const place = state.places.find((each) => each.rows.includes(study.picked()));
      const drawn = charts.get(box) && charts.get(box).drawn;
      ring.hidden = !place || !drawn;
      if (!ring.hidden) { ring.style.left = `${place.px}px`; ring.style.top = `${place.py}px`; }
    };
    study.onPick(circle);
    return { circle, show, hide };
  };
  const best = (rows) => rows.reduce((a, b) => (study.rank[b] < study.rank[a] ? b : a));

  const symbols = (name, all, symbol, colour, size, label, z) => ({
    name, type: "scatter", silent: true, z, symbol, symbolSize: size, data: all.map((each) => [each.x, each.y]),
    itemStyle: { color: colour, borderColor: colours().panel, borderWidth: 1.2 },
    label: label ? { show: true, formatter: label, position: "top", distance: 3, fontSize: 11, fontWeight: 600,
      color: colours().text, textBorderColor: colours().panel, textBorderWidth: 3 } : undefined,
  });
  const head = (rows) => {
    const first = best(rows);
    const rest = rows.length > 1 ? ` and ${(rows.length - 1).toLocaleString("en")} more here` : "";
    const called = study.names(first).join(", ");
    return `<b>Setting ${study.setting[first]}${rest}</b>${called ? `<div class="tip"><span>${esc(called)}</span></div>` : ""}`;
  };
  // Steps of time are those of a clock.
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const axis = (what, extra) => {
    const c = colours();
    const span = what.distinct.length ? what.distinct[what.distinct.length - 1] - what.distinct[0] : 0;
    const step = what.kind === "s" && span > 5 ? STEPS.find((each) => span / each <= 5) : undefined;
    return {
      ...(step ? { interval: step, min: ({ min }) => Math.floor(min / step) * step, max: ({ max }) => Math.ceil(max / step) * step } : {}),
      type: "value", scale: true, minInterval: what.distinct.every(Number.isInteger) ? 1 : undefined,
      axisLine: { show: true, lineStyle: { color: c.line } }, axisTick: { lineStyle: { color: c.line } },
      splitLine: { lineStyle: { color: c.line, opacity: 0.6 } },
      axisLabel: { color: c.soft, fontSize: 11, hideOverlap: true,
        formatter: (value) => study.text({ ...what, parameter: false }, value) },
      nameTextStyle: { color: c.soft }, ...extra,
    };
  };
  return { places, series, follow, best, symbols, head, axis, line, tooltip };
})();
