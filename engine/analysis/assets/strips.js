// Strip charts: readings with limits and deadbands, latches and signals as lanes, the score with
// its thresholds, transitions as marks, incidents shaded. Heights are those of reports/drawn.py.
(() => {
  "use strict";
  const { values, LEVELS, add, tooltip, row, dot, axisTime, narrow, colours } = tocsin;
  const { moment, number, esc } = tocsin;
  const PLOT = 118, LANE = 13, SCORE = 96;
  const UP = "path://M0,10 L5,0 L10,10 Z", DOWN = "path://M0,0 L10,0 L5,10 Z";
  const SHAPE = { raise: UP, escalate: UP, "de-escalate": DOWN, clear: "emptyCircle" };

  const pairs = (flat, since, gap) => {
    const found = [];
    for (let i = 0; i < flat.length; i += 2) {
      if (gap && i && flat[i] - flat[i - 2] > gap) found.push([since + (flat[i] + flat[i - 2]) / 2, null]);
      found.push([since + flat[i], flat[i + 1]]);
    }
    return found;
  };
  const extent = (sensor) => {
    const numbers = sensor.limits.map((limit) => limit[2]);
    for (let i = 1; i < sensor.curve.length; i += 2) numbers.push(sensor.curve[i]);
    for (const [, value] of sensor.late) numbers.push(value);
    if (!numbers.length) return [0, 1];
    const low = Math.min(...numbers), high = Math.max(...numbers);
    const pad = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
    const floor = low >= 0 && low - pad < 0 ? 0 : low - pad;
    return [floor, high + pad];
  };

  // Labels at the right edge: as many as there is room for, pushed apart, each near its line.
  const labelled = (limits, low, high, tall) => {
    const least = 11;
    const y = (at) => tall * (high - at) / (high - low);
    const rising = limits.map((limit, i) => [y(limit.at), i]).sort((a, b) => b[0] - a[0]);
    const moves = [];
    let above = Infinity;
    for (const [at, i] of rising) {
      const put = Math.min(at, above - least);
      moves[i] = put - at;
      above = put;
    }
    return limits.map((limit, i) => {
      const move = moves[i];
      return {
        yAxis: limit.at,
        lineStyle: { color: colours().level[limit.level], type: "dashed", width: 1.2 },
        label: { position: "end", color: colours().text, fontSize: 10, lineHeight: 10, distance: 3,
          // the only way to move such a label: its foot stands above the line by the padding
          ...(move < 0 ? { verticalAlign: "bottom", padding: [0, 0, -move - 5, 0] } : {}),
          formatter: () => (narrow() ? number(limit.at) : `${LEVELS[limit.level]} ${number(limit.at)}`) },
      };
    });
  };

  const option = (strip) => {
    const c = colours();
    const left = narrow() ? 52 : 76, right = narrow() ? 34 : 62;
    const since = strip.since + values.offset, until = since + strip.length;
    const grids = [], xAxes = [], yAxes = [], series = [];
    let top = 8;

    const x = (last) => ({
      type: "time", gridIndex: grids.length - 1, min: since, max: until,
      axisLine: { lineStyle: { color: c.line } }, axisTick: { show: last, lineStyle: { color: c.line } },
      axisLabel: { show: last, color: c.soft, fontSize: 11, hideOverlap: true,
        formatter: (ms) => axisTime(ms, strip.length) },
      splitLine: { show: true, lineStyle: { color: c.line, opacity: 0.35 } },
      axisPointer: { label: { show: false }, lineStyle: { color: c.soft } },
    });
    const incidents = () => ({
      silent: true,
      itemStyle: { color: c.incident },
      label: { show: true, position: "insideTopLeft", color: c.soft, fontSize: 10, distance: 3,
        formatter: ({ name }) => name },
      data: strip.incidents.map(([from, to, kind], i) => [
        { name: grids.length === 1 ? kind : "", xAxis: Math.max(since, since + from) },
        { xAxis: Math.min(until, since + to) }]),
    });
    const happened = () => strip.transitions.slice(0, 40).map(({ at, level }) => ({
      xAxis: since + at,
      lineStyle: { color: level ? c.level[level] : c.soft, type: "dotted", width: 1, opacity: 0.8 },
      label: { show: false },
    }));

    strip.sensors.forEach((sensor) => {
      grids.push({ left, right, top: top + 20, height: PLOT - 34 });
      const index = grids.length - 1;
      xAxes.push(x(false));
      const [low, high] = extent(sensor);
      const unit = sensor.unit ? `, ${sensor.unit}` : "";
      yAxes.push({
        gridIndex: index, min: low, max: high, splitNumber: 3,
        name: `${sensor.quantity}${unit} · ${sensor.id}${sensor.watched ? "" : " · no profile"}`,
        nameLocation: "end", nameGap: 6,
        nameTextStyle: { align: "left", color: c.text, fontSize: 11, fontWeight: 600,
          padding: [0, 0, 0, 8 - left] },
        nameTruncate: { maxWidth: narrow() ? 280 : 460 },
        axisLabel: { color: c.soft, fontSize: 10, showMinLabel: false, showMaxLabel: false,
          formatter: number },
        axisLine: { show: false }, splitLine: { show: false },
      });
      const points = sensor.curve.length / 2;
      series.push({
        name: sensor.id, type: "line", xAxisIndex: index, yAxisIndex: index, z: 3,
        data: pairs(sensor.curve, since, sensor.gap),
        showSymbol: points < 90, symbol: "circle", symbolSize: 3, connectNulls: false,
        lineStyle: { color: c.plot, width: 1.3 }, itemStyle: { color: c.plot },
        markLine: {
          silent: true, symbol: "none", animation: false,
          data: [
            ...labelled(sensor.limits.map(([, level, at]) => ({ level, at })), low, high, PLOT - 34),
            ...happened(),
          ],
        },
        markArea: strip.incidents.length ? incidents() : undefined,
      });
      if (sensor.deadband) {
        series.push({
          type: "line", xAxisIndex: index, yAxisIndex: index, data: [], silent: true,
          markArea: { silent: true, data: sensor.limits.map(([side, level, at]) => [
            { yAxis: at, itemStyle: { color: c.level[level], opacity: 0.12 } },
            { yAxis: at - side * sensor.deadband }]) },
        });
      }
      if (sensor.bad.length || sensor.late.length) {
        series.push({
          type: "scatter", xAxisIndex: index, yAxisIndex: index, z: 4, silent: true,
          data: [
            ...sensor.bad.map((at) => ({ value: [since + at, low],
              symbol: "path://M0,0 L10,10 M10,0 L0,10", symbolSize: 6, symbolOffset: [0, -5],
              itemStyle: { color: "none", borderColor: c.soft, borderWidth: 1.2 } })),
            ...sensor.late.map(([at, value]) => ({ value: [since + at, value],
              symbol: "emptyCircle", symbolSize: 5, itemStyle: { color: c.soft } })),
          ],
        });
      }
      top += PLOT;
      if (sensor.lanes.length) top = lanes(sensor.lanes, top);
    });

    function lanes(all, from, last = false) {
      const tall = LANE * all.length;
      grids.push({ left, right, top: from - 8, height: tall });
      const index = grids.length - 1;
      xAxes.push({ ...x(last), axisLine: { show: false }, splitLine: { show: false } });
      yAxes.push({
        type: "category", gridIndex: index, inverse: true, data: all.map((lane) => lane.name),
        axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { color: c.soft, fontSize: 10, interval: 0, margin: 6 },
      });
      const drawn = [];
      all.forEach((lane, i) => {
        for (const [start, end, level] of lane.segments) {
          drawn.push({ value: [since + start, since + end, i, level, lane.latch ? 1 : 0] });
        }
      });
      series.push({
        type: "custom", xAxisIndex: index, yAxisIndex: index, data: drawn, clip: true,
        encode: { x: [0, 1], y: 2 }, silent: true,
        renderItem: (of, api) => {
          const [x0, y] = api.coord([api.value(0), api.value(2)]);
          const [x1] = api.coord([api.value(1), api.value(2)]);
          const level = api.value(3);
          const shape = { x: x0, y: y - LANE / 2 + 2, width: Math.max(x1 - x0, 1.5), height: LANE - 4, r: 1.5 };
          const wide = shape.width > 46 && !api.value(4);
          return {
            type: "rect", shape, style: { fill: c.level[level], opacity: api.value(4) ? 0.95 : 0.7 },
            textContent: wide ? { type: "text", style: { text: LEVELS[level], fontSize: 9, fill: c.text } } : undefined,
            textConfig: wide ? { position: "insideLeft", distance: 3 } : undefined,
          };
        },
      });
      return from + tall;
    }

    // the score, at the foot
    grids.push({ left, right, top: top + 20, height: SCORE - 34 });
    const index = grids.length - 1;
    xAxes.push(x(!strip.level.length));
    yAxes.push({
      gridIndex: index, min: 0, max: 100, interval: 50, name: "score", nameLocation: "end", nameGap: 6,
      nameTextStyle: { align: "left", color: c.text, fontSize: 11, fontWeight: 600,
        padding: [0, 0, 0, 8 - left] },
      axisLabel: { color: c.soft, fontSize: 10 }, axisLine: { show: false }, splitLine: { show: false },
    });
    series.push({
      name: "score", type: "line", step: "end", xAxisIndex: index, yAxisIndex: index, showSymbol: false,
      z: 3, data: pairs(strip.score, since), lineStyle: { color: c.plot, width: 1.5 },
      itemStyle: { color: c.plot }, areaStyle: { color: c.plot, opacity: 0.1 },
      markLine: {
        silent: true, symbol: "none",
        data: [
          ...labelled(strip.thresholds.map(([level, at]) => ({ level, at })), 0, 100, SCORE - 34),
          ...happened(),
        ],
      },
      markArea: strip.incidents.length ? incidents() : undefined,
    });
    series.push({
      type: "scatter", xAxisIndex: index, yAxisIndex: index, z: 5, silent: true,
      data: strip.transitions.map(({ at, kind, level }) => ({
        value: [since + at, 100], symbol: SHAPE[kind], symbolSize: kind === "clear" ? 6 : 8, symbolOffset: [0, 0],
        itemStyle: { color: level ? c.level[level] : c.soft, borderColor: c.panel, borderWidth: kind === "clear" ? 0 : 1 } })),
    });
    top += SCORE;
    if (strip.level.length) lanes([{ name: "level", latch: false, segments: strip.level }], top, true);

    return {
      useUTC: true, grid: grids, xAxis: xAxes, yAxis: yAxes, series,
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      dataZoom: [{ type: "inside", xAxisIndex: xAxes.map((_, i) => i), zoomOnMouseWheel: "ctrl",
        moveOnMouseWheel: false, moveOnMouseMove: true, filterMode: "none" }],
      tooltip: {
        ...tooltip(), trigger: "axis", axisPointer: { type: "line" },
        formatter: (found) => told(strip, found[0].axisValue - values.offset),
      },
    };
  };

  // What stood at a moment: the newest reading of each sensor, its latches and signals, the score.
  const told = (strip, at) => {
    const c = colours();
    const t = at - strip.since;
    const newest = (flat) => {
      let low = 0, high = flat.length / 2;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (flat[2 * middle] <= t) low = middle + 1; else high = middle;
      }
      return low ? flat[2 * low - 1] : null;
    };
    const lines = strip.sensors.map((sensor) => {
      const value = newest(sensor.curve);
      const up = sensor.lanes.flatMap((lane) => lane.segments
        .filter(([from, to]) => from <= t && t < to)
        .map(([, , level]) => row(dot(c.level[level]),
          lane.latch ? `latched ${lane.name}` : lane.name, lane.latch ? "" : LEVELS[level])));
      return row("", `${sensor.quantity} (${sensor.id})`,
        value === null ? "no reading yet" : `${number(value)} ${sensor.unit}`.trim()) + up.join("");
    });
    const score = newest(strip.score);
    const level = strip.level.find(([from, to]) => from <= t && t < to);
    lines.push(row(dot(level ? c.level[level[2]] : "transparent"), `score, level ${level ? LEVELS[level[2]] : LEVELS[0]}`,
      score === null ? "–" : number(score)));
    return `<b>${esc(moment(at))}</b>${lines.join("")}`;
  };

  for (const box of document.querySelectorAll(".plot")) {
    const strip = values.strips[+box.dataset.strip];
    add(box, () => option(strip));
  }
})();
