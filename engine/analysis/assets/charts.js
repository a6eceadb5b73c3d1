// Alarms over time, the calendar, the Pareto chart.
(() => {
  "use strict";
  const { values, LEVELS, byId, add, tables, tooltip, row, dot, axisTime, narrow, colours } = tocsin;
  const { moment, clock, lasting, percent, esc, date } = tocsin;
  const moved = (ms) => ms + values.offset;
  const axisLine = () => ({
    axisLine: { lineStyle: { color: colours().line } },
    axisTick: { lineStyle: { color: colours().line } },
    axisLabel: { color: colours().soft, fontSize: 11 },
    splitLine: { lineStyle: { color: colours().line, opacity: 0.6 } },
  });
  // Each level has its own hatching, so that colour alone tells nothing.
  const DECALS = [
    null,
    { symbol: "none" },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 5], rotation: Math.PI / 4 },
    { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 3], rotation: -Math.PI / 4 },
    { symbol: "circle", symbolSize: 0.8, dashArrayX: [[4, 4], [0, 4, 4, 0]], dashArrayY: [4, 0] },
  ];
  const decal = (level) => ({ ...DECALS[level], color: "rgba(255,255,255,.38)" });

  const overTime = byId("over-time");
  if (overTime) {
    const { start, step, counts } = values.series;
    const n = counts[0].length;
    const begin = (i) => start + i * step;
    // floods of several operators at a time are shaded once
    const shaded = () => values.floods.reduce((found, [from, until]) => {
      const last = found[found.length - 1];
      if (last && from <= last[1]) last[1] = Math.max(last[1], until);
      else found.push([from, until]);
      return found;
    }, []);
    add(overTime, () => {
      const c = colours();
      const span = values.span[1] - values.span[0];
      return {
        grid: { left: 44, right: 16, top: 34, bottom: 28 },
        legend: { top: 0, right: 8, itemWidth: 12, itemHeight: 10, textStyle: { color: c.soft } },
        tooltip: {
          ...tooltip(), trigger: "axis", axisPointer: { type: "shadow" },
          formatter: (bars) => {
            const i = bars[0].dataIndex;
            const to = moment(begin(i + 1), false);
            const end = date(begin(i)) === date(begin(i + 1)) ? clock(begin(i + 1), false) : to;
            const lines = [4, 3, 2, 1].filter((k) => counts[k - 1][i])
              .map((k) => row(dot(c.level[k]), LEVELS[k], counts[k - 1][i]));
            const floods = values.floods
              .filter(([from, until]) => from < begin(i + 1) && until >= begin(i))
              .map(([, , operator]) => row("", "flood of", operator));
            return `<b>${esc(moment(begin(i), false))} – ${esc(end)}</b>` +
              (lines.join("") || row("", "no alarm", "")) + floods.join("");
          },
        },
        xAxis: {
          type: "time", min: moved(start), max: moved(begin(n)), ...axisLine(),
          splitLine: { show: false },
          axisLabel: {
            color: c.soft, fontSize: 11, hideOverlap: true, formatter: (ms) => axisTime(ms, span),
          },
        },
        yAxis: { type: "value", minInterval: 1, name: "alarms", ...axisLine(),
          nameTextStyle: { color: c.soft, align: "right" } },
        series: [1, 2, 3, 4].map((level) => ({
          name: LEVELS[level], type: "bar", stack: "alarms", barCategoryGap: "8%",
          barMaxWidth: 40,
          data: counts[level - 1].map((count, i) => [moved(begin(i) + step / 2), count]),
          itemStyle: { color: c.level[level], decal: decal(level) },
          emphasis: { disabled: true },
          markArea: level > 1 ? undefined : {
            silent: true, itemStyle: { color: c.flood },
            data: shaded().map(([from, until]) => [
              { xAxis: moved(from) }, { xAxis: moved(Math.max(until, from + step / 4)) }]),
          },
        })),
        useUTC: true,
      };
    });
    tables.set("over-time", () => ({
      heads: ["From", ...LEVELS.slice(1), "all"],
      rows: counts[0].map((_, i) => [
        moment(begin(i), false), ...counts.map((of) => of[i]),
        counts.reduce((sum, of) => sum + of[i], 0),
      ]).filter((cells) => cells[5]),
    }));
  }

  const calendar = byId("calendar");
  if (calendar) {
    const { rows, columns, cells, unit } = values.calendar;
    const most = Math.max(1, ...cells.map((cell) => cell[2]));
    add(calendar, () => {
      const c = colours();
      const room = calendar.clientWidth / columns.length;
      return {
        grid: { left: narrow() ? 76 : 112, right: 12, top: 6, bottom: 26 },
        tooltip: {
          ...tooltip(),
          formatter: ({ value: [column, line, count] }) =>
            `<b>${esc(rows[line])}, ${esc(columns[column])}</b>` + row("", `alarms in the ${unit}`, count),
        },
        xAxis: { type: "category", data: columns, ...axisLine(), splitLine: { show: false },
          axisTick: { show: false },
          axisLabel: { color: c.soft, fontSize: 11, hideOverlap: true,
            interval: columns.length === 48 ? (i) => i % (narrow() ? 12 : 4) === 0
              : narrow() ? (i) => i % 6 === 0 : "auto" } },
        yAxis: { type: "category", data: rows, inverse: true, ...axisLine(),
          axisTick: { show: false },
          axisLabel: { color: c.soft, fontSize: 11,
            formatter: (name) => (narrow() ? name.replace(/ \d{4}$/, "") : name) } },
        visualMap: { show: false, min: 0, max: most, type: "continuous",
          inRange: { color: [c.cold, c.hot] } },
        series: [{
          type: "heatmap", data: cells,
          itemStyle: { borderColor: c.panel, borderWidth: 1.5, borderRadius: 2 },
          label: { show: room > 20, fontSize: 10,
            formatter: ({ value }) => (value[2] ? String(value[2]) : ""),
            color: c.text },
          emphasis: { itemStyle: { borderColor: c.text } },
        }],
      };
    });
    tables.set("calendar", () => ({
      heads: [unit === "day" ? "Month" : "Day", unit === "day" ? "Day" : "From", "Alarms"],
      rows: cells.filter((cell) => cell[2]).map(([column, line, n]) => [rows[line], columns[column], n]),
    }));
  }

  const pareto = byId("pareto");
  if (pareto) {
    const { points, totals, names, target } = values.pareto;
    const last = points[points.length - 1][0];
    const few = last <= totals.length; // a bar for each; of more, the curve alone on a log axis
    add(pareto, () => {
      const c = colours();
      return {
        grid: { left: 44, right: 50, top: 30, bottom: 40 },
        tooltip: {
          ...tooltip(), trigger: "axis", axisPointer: { type: "line" },
          formatter: (found) => {
            const k = Math.round(found[0].value[0]);
            const point = points.filter((each) => each[0] <= k).pop() || points[0];
            return `<b>${k === 1 ? "The busiest source" : `The ${k} busiest sources`}</b>` +
              row("", "share of all alarms", percent(point[1])) +
              (k <= names.length ? row("", names[k - 1], `${totals[k - 1]} alarms`) : "");
          },
        },
        xAxis: { type: few ? "value" : "log", min: 1, max: last > 1 ? last : 2,
          minInterval: 1, name: "busiest sources", nameLocation: "middle", nameGap: 24,
          nameTextStyle: { color: c.soft }, ...axisLine(), splitLine: { show: false } },
        yAxis: [
          { type: "value", name: few ? "alarms" : "", minInterval: 1, show: few, ...axisLine(),
            nameTextStyle: { color: c.soft, align: "right" } },
          { type: "value", min: 0, max: 1, name: "share", ...axisLine(), splitLine: { show: false },
            nameTextStyle: { color: c.soft, align: "left" },
            axisLabel: { color: c.soft, fontSize: 11, formatter: (x) => percent(x) } },
        ],
        series: [
          { type: "bar", data: few ? totals.map((n, i) => [i + 1, n]) : [], barWidth: "60%",
            barMaxWidth: 18, itemStyle: { color: c.shade } },
          { type: "line", yAxisIndex: 1, data: points, showSymbol: points.length < 40, symbolSize: 5,
            lineStyle: { color: c.accent, width: 2 }, itemStyle: { color: c.accent },
            areaStyle: few ? undefined : { color: c.accent, opacity: 0.08 },
            markLine: {
              silent: true, symbol: "none", lineStyle: { color: c.soft, type: "dashed" },
              label: { color: c.soft, fontSize: 11 },
              data: [
                { yAxis: target, label: { position: "insideEndTop",
                  formatter: () => `target for ten: < ${percent(target)}` } },
                ...(last > 10 ? [{ xAxis: 10, label: { formatter: () => "ten" } }] : []),
              ],
            } },
        ],
      };
    });
    tables.set("pareto", () => ({
      heads: ["Busiest sources", "Share of all alarms"],
      rows: points.map(([k, part]) => [k, percent(part)]),
    }));
  }
})();
