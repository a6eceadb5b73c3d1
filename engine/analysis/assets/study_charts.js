// Settings against each other, the picked one beside the given and the chosen, and what each parameter did.
(() => {
  "use strict";
  const { byId, element, add, draw, charts, tables, colours, narrow, esc, row } = tocsin;
  const { of, parameters, figures, figure, text, marks, setting, names } = study;
  const accepted = study.ranked.filter((i) => marks.accepted[i]);
  const varies = (what) => {
    const seen = new Set(accepted.map((i) => what.column[i]).filter((value) => !Number.isNaN(value)));
    return seen.size > 1;
  };
  const first = of.first.map(figure);
  const rest = figures.filter((each) => !first.includes(each));
  const moving = [...first, ...rest].filter(varies);
  const choices = moving.length ? moving : first;
  const label = (what) => `${what.name}: ${what.words}`;
  const fill = (select, chosen) => {
    const group = (name, list) => {
      if (!list.length) return;
      const made = element("optgroup", { label: name });
      for (const each of list) {
        const option = element("option", { value: each.name }, label(each));
        if (each === chosen) option.selected = true;
        made.append(option);
      }
      select.append(made);
    };
    group("Asked for and beside it", choices.filter((each) => first.includes(each)));
    group("Others", choices.filter((each) => !first.includes(each)));
  };
  const aims = [...of.objectives, ...of.requirements].map(([name]) => figure(name));
  const wanted = [...new Set([...aims.filter((each) => choices.includes(each)), ...choices])];
  const SENSE = { "-1": "less is better", 1: "more is better", 0: "" };
  const axisName = (what) => what.words + (SENSE[what.better] ? ` (${SENSE[what.better]})` : "");
  const about = (rows, shown) => {
    const best = cloud.best(rows);
    const moved = parameters.filter((each) =>
      !Object.is(each.column[best], each.column[of.given])).slice(0, 10);
    return cloud.head(rows) + shown.map((each) => row("", each.name, text(each, each.column[best]))).join("") +
      (moved.length ? '<div class="tip head"><span>changed</span></div>' : "") + moved.map((each) =>
      row("", each.name, `${text(each, each.column[of.given])} → ${text(each, each.column[best])}`)).join("");
  };

  // --- the trade-off ---
  const box = byId("tradeoff");
  const acrossOf = byId("axis-x"), upOf = byId("axis-y"), alone = byId("front-only");
  fill(acrossOf, wanted[0]);
  fill(upOf, wanted[1] || wanted[0]);
  const trade = { places: [] };
  const shownFigures = () => [...new Set([figure(acrossOf.value), figure(upOf.value), ...aims])];
  const following = cloud.follow(box, trade, (place) => about(place.rows, shownFigures()));
  const bounds = (what, key) => of.requirements.filter(([name]) => name === what.name)
    .map(([, sense, bound]) => ({ [key]: bound, name: `${sense} ${bound}` }));
  add(box, () => {
    const c = colours();
    const across = figure(acrossOf.value), up = figure(upOf.value);
    const at = (rows) => cloud.places(rows, across.column, up.column);
    const front = accepted.filter((i) => marks.front[i]);
    const plain = alone.checked ? [] : accepted.filter((i) => marks.able[i]);
    const unable = alone.checked ? [] : accepted.filter((i) => !marks.able[i]);
    const ends = [of.given, of.best].filter((i, k, all) => all.indexOf(i) === k);
    const parts = { plain: at(plain), unable: at(unable), front: at(front) };
    trade.places = at([...new Set([...plain, ...unable, ...front, ...ends])]);
    const two = of.objectives.length === 2 &&
      of.objectives.every(([name]) => [across.name, up.name].includes(name));
    const steps = two ? parts.front.slice().sort((a, b) => a.x - b.x || a.y - b.y) : [];
    const spots = cloud.series("all", trade.places, { colour: "transparent", opacity: 0, z: 1 });
    const limits = [...bounds(across, "xAxis"), ...bounds(up, "yAxis")];
    requestAnimationFrame(() => following.circle());
    return {
      aria: { enabled: false },
      grid: { left: narrow() ? 58 : 74, right: 26, top: narrow() ? 74 : 56, bottom: 48 },
      legend: { top: 0, left: 0, itemWidth: 14, itemHeight: 11, selectedMode: false, textStyle: { color: c.soft },
        data: [
          { name: "settings", icon: "circle" },
          ...(parts.unable.length ? [{ name: "misses a requirement",
            icon: "path://M0,1L1,0L5,4L9,0L10,1L6,5L10,9L9,10L5,6L1,10L0,9L4,5Z" }] : []),
          { name: "front", icon: "diamond" }, { name: "given rules", icon: "triangle" },
          ...(ends.length > 1 ? [{ name: study.bestWord, icon: "rect" }] : []),
        ] },
      xAxis: cloud.axis(across, { name: axisName(across), nameLocation: "middle", nameGap: 28 }),
      yAxis: cloud.axis(up, { name: axisName(up), nameLocation: "end",
        nameTextStyle: { color: c.soft, align: "left", padding: [0, 0, 0, narrow() ? -48 : -62] } }),
      series: [
        spots,
        cloud.series("settings", parts.plain, { colour: c.plot, opacity: 0.42, z: 2 }),
        cloud.series("misses a requirement", parts.unable, { crosses: true, colour: c.soft, opacity: 0.7, z: 2 }),
        { type: "line", silent: true, z: 3, step: "end", showSymbol: false, data: steps.map((each) => [each.x, each.y]),
          lineStyle: { color: c.accent, width: 1.5, type: "dashed" }, itemStyle: { color: c.accent },
          markLine: limits.length ? { silent: true, symbol: "none", data: limits,
            lineStyle: { color: c.soft, type: "dotted" },
            label: { color: c.soft, fontSize: 11, formatter: "{b}", position: "insideEndTop" } } : undefined },
        cloud.symbols("front", parts.front, "diamond", c.accent, 13, "", 4),
        cloud.symbols("given rules", at([of.given]), "triangle", c.text, 15, "given", 6),
        ...(ends.length > 1 ? [cloud.symbols(study.bestWord, at([of.best]), "rect", c.level[3], 13, study.bestWord, 7)] : []),
      ],
    };
  });
  const again = (what) => { if (charts.get(what).drawn) draw(what); };
  for (const field of [acrossOf, upOf, alone]) {
    field.addEventListener("input", () => { following.hide(); again(box); });
  }
  // Arrow keys go through what is drawn, from left to right; Home and End to its ends.
  const around = byId("tradeoff-around");
  around.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!way || event.target.closest("details")) return;
    event.preventDefault();
    const stops = trade.places.filter((each) => each.rows.some((i) => marks.front[i] || i === of.given || i === of.best))
      .sort((a, b) => a.x - b.x || a.y - b.y);
    const all = event.shiftKey ? trade.places.slice().sort((a, b) => a.x - b.x || a.y - b.y) : stops;
    if (!all.length) return;
    const here = all.findIndex((each) => each.rows.includes(study.picked()));
    const next = all[Math.max(0, Math.min(all.length - 1, here + way))];
    study.pick(cloud.best(next.rows));
    following.show(next);
  });
  around.addEventListener("blur", following.hide);
  tables.set("tradeoff", () => {
    const rows = study.ranked.filter((i) => marks.front[i] || i === of.given);
    return {
      heads: ["Setting", ...aims.map((each) => each.name), ...parameters.map((each) => each.name)],
      rows: rows.map((i) => [[setting[i], ...names(i)].join(" "),
        ...[...aims, ...parameters].map((each) => text(each, each.column[i]))]),
    };
  });

  // --- the picked setting beside the given and the chosen ---
  const panel = byId("picked"), title = byId("picked-title");
  const columns = (i) => [["given", of.given], [study.bestWord, of.best], ["picked", i]]
    .filter(([, at], k, all) => all.findIndex(([, other]) => other === at) === k);
  const compare = (i) => {
    const sides = columns(i);
    const called = names(i).join(", ");
    title.textContent = `Setting ${setting[i]}${called ? `: ${called}` : ""}`;
    const line = (what) => {
      const base = what.column[of.given];
      return element("tr", {}, element("th", { scope: "row", title: what.words || "" }, ...study.broken(what.name),
        ...(what.unit ? [element("span", { class: "unit" }, ` ${what.unit}`)] : [])),
      ...sides.map(([, at]) => element("td", { class: `n${Object.is(what.column[at], base) ? "" : " moved"}` },
        text(what, what.column[at]))));
    };
    const moved = parameters.filter((each) => sides.some(([, at]) => !Object.is(each.column[at], each.column[of.given])));
    const alike = parameters.length - moved.length;
    const heading = (words) => element("tr", { class: "group" }, element("th", { colspan: sides.length + 1, scope: "colgroup" }, words));
    panel.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The picked setting" },
      element("table", {},
        element("thead", {}, element("tr", {}, element("td", {}), ...sides.map(([name, at]) =>
          element("th", { scope: "col", class: "n" }, name, element("span", { class: "sub" }, `#${setting[at]}`))))),
        element("tbody", {}, heading(alike ? `Parameters; ${alike} more as given` : "Parameters"), ...moved.map(line),
          heading("Figures"), ...first.map(line)))),
    ...(study.reason(i) ? [element("p", { class: "note" }, study.reason(i))] : []));
  };
  study.onPick(compare);
  compare(study.picked());

  // --- what each parameter did ---
  const figureOf = byId("figure");
  fill(figureOf, wanted[0]);
  const MOST_VALUES = 25, BINS = 8;
  const quantile = (sorted, part) => {
    const at = part * (sorted.length - 1), low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  };
  // Settings in groups of one value, or of neighbouring ones where there are many.
  const grouped = (what, up) => {
    const rows = accepted.filter((i) => !Number.isNaN(what.column[i]) && !Number.isNaN(up.column[i]))
      .sort((a, b) => what.column[a] - what.column[b]);
    const groups = [];
    const seen = new Set(rows.map((i) => what.column[i]));
    const few = seen.size <= MOST_VALUES;
    rows.forEach((i, k) => {
      const value = what.column[i];
      const last = groups[groups.length - 1];
      const bin = few ? value : Math.floor((k * BINS) / rows.length);
      if (last && (last.bin === bin || last.to === value)) { last.rows.push(i); last.to = value; }
      else groups.push({ bin, from: value, to: value, rows: [i] });
    });
    return groups.map(({ from, to, rows: within }) => {
      const sorted = Float64Array.from(within, (i) => up.column[i]).sort();
      return { from, to, n: within.length, x: within.reduce((sum, i) => sum + what.column[i], 0) / within.length,
        low: quantile(sorted, 0.25), middle: quantile(sorted, 0.5), high: quantile(sorted, 0.75),
        sum: sorted.reduce((a, b) => a + b, 0), square: sorted.reduce((a, b) => a + b * b, 0) };
    });
  };
  // The share of variance between groups, less what chance alone would give (epsilon squared: Kelley, 1935).
  const effect = (groups) => {
    const n = groups.reduce((total, each) => total + each.n, 0), k = groups.length;
    if (k < 2 || n <= k) return NaN;
    const mean = groups.reduce((total, each) => total + each.sum, 0) / n;
    const within = groups.reduce((total, each) => total + each.square - each.sum ** 2 / each.n, 0);
    const whole = groups.reduce((total, each) => total + each.square, 0) - n * mean * mean;
    if (!(whole > 1e-12 * Math.max(1, n * mean * mean))) return 0;
    return Math.min(1, Math.max(0, 1 - (within / (n - k)) / (whole / (n - 1))));
  };
  const multiples = [];
  let ordered = [];
  const measure = () => {
    const up = figure(figureOf.value);
    ordered = parameters.map((what, place) => {
      const groups = grouped(what, up);
      return { what, groups, share: effect(groups), place };
    }).sort((a, b) => (b.share || 0) - (a.share || 0) || a.place - b.place);
    multiples.forEach((each, k) => {
      const { what, groups, share } = ordered[k];
      const best = groups.length ? groups.reduce((a, b) => (up.better * (b.middle - a.middle) > 0 ? b : a)) : null;
      const span = best && (best.from === best.to ? text(what, best.from) : `${text(what, best.from)} to ${text(what, best.to)}`);
      const differ = best && up.better && groups.some((g) => g.middle !== best.middle);
      each.caption.replaceChildren(element("b", {}, ...study.broken(what.name)), ...(what.unit ? [` ${what.unit}`] : []),
        element("span", { class: "sub" }, [
          Number.isNaN(share) ? "too few settings to tell" : share < 0.005 ? "none of the spread goes with it"
            : `${(100 * share).toFixed(0)} % of the spread goes with it`,
          share < 0.005 ? "" : differ ? `best median ${text(up, best.middle)} at ${span}` : groups.length > 1 ? "medians are alike" : "",
        ].filter(Boolean).join("; ")));
    });
  };
  const logarithmic = (what) => {
    const [low, high] = [what.distinct[0], what.distinct[what.distinct.length - 1]];
    const middle = what.distinct[what.distinct.length >> 1];
    return low > 0 && high / low >= 20 && middle - low < 0.3 * (high - low);
  };
  for (let k = 0; byId(`multiple-${k}`); k += 1) {
    const place = byId(`multiple-${k}`);
    const state = { places: [] };
    const mine = cloud.follow(place, state, (each) => about(each.rows, [figure(figureOf.value)]));
    multiples.push({ place, caption: byId(`multiple-${k}-title`), mine });
    add(place, () => {
      const c = colours();
      const { what, groups } = ordered[k];
      const up = figure(figureOf.value);
      state.places = cloud.places(accepted, what.column, up.column);
      const at = (i) => cloud.places([i], what.column, up.column);
      requestAnimationFrame(() => mine.circle());
      return {
        grid: { left: 52, right: 14, top: 14, bottom: 24 },
        xAxis: cloud.axis(what, { ...(logarithmic(what) ? { type: "log", min: what.distinct[0], max: what.distinct[what.distinct.length - 1] } : {}),
          splitLine: { show: false },
          axisLabel: { color: c.soft, fontSize: 11, hideOverlap: true, formatter: (value) => String(+value.toPrecision(6)) } }),
        yAxis: cloud.axis(up, { splitNumber: 3 }),
        series: [
          cloud.series("settings", state.places, { colour: c.plot, opacity: 0.3, z: 2, scale: 0.75 }),
          { type: "custom", silent: true, z: 1, encode: { x: 0, y: 1 }, clip: true,
            data: groups.length > 1 ? [[groups[0].x, groups[0].low]] : [],
            renderItem: (_, api) => ({ type: "polygon", silent: true,
              shape: { points: [...groups.map((g) => api.coord([g.x, g.high])),
                ...groups.slice().reverse().map((g) => api.coord([g.x, g.low]))] },
              style: { fill: c.accent, opacity: 0.16 } }) },
          { type: "line", silent: true, z: 3, data: groups.map((g) => [g.x, g.middle]), showSymbol: groups.length < 2,
            lineStyle: { color: c.accent, width: 2 }, itemStyle: { color: c.accent } },
          cloud.symbols("given", at(of.given), "triangle", c.text, 12, "", 6),
          ...(of.best === of.given ? [] : [cloud.symbols(study.bestWord, at(of.best), "rect", c.level[3], 10, "", 7)]),
        ],
      };
    });
  }
  measure();
  figureOf.addEventListener("input", () => {
    measure();
    for (const each of multiples) { each.mine.hide(); again(each.place); }
  });

  const save = byId("save-rules");
  if (save) {
    save.addEventListener("click", () => {
      const file = new Blob([byId("rules-text").textContent], { type: "application/toml" });
      const link = element("a", { href: URL.createObjectURL(file), download: "rules.toml" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
