// A study's settings: columns unpacked, numbers in words, and which setting is picked.
const study = (() => {
  "use strict";
  const { values, number, percent, lasting } = tocsin;
  const of = values.study;
  const n = of.n;

  const index = ({ bytes, text }) => {
    const found = new Uint32Array(n);
    if (!bytes) return found;
    const raw = atob(text);
    for (let i = 0; i < n; i += 1) {
      let value = 0;
      for (let b = bytes - 1; b >= 0; b -= 1) value = value * 256 + raw.charCodeAt(i * bytes + b);
      found[i] = value;
    }
    return found;
  };
  const DIGITS = 6; // as the page's maker rounds
  const narrow = (text) => {
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(raw.buffer);
    return Float64Array.from({ length: n }, (_, i) => +view.getFloat32(4 * i, true).toPrecision(DIGITS));
  };
  const columnOf = (packed) => {
    if (packed.float32 !== undefined) return narrow(packed.float32);
    const at = index(packed.at);
    const distinct = packed.values.map((value) => (value === null ? NaN : value));
    return Float64Array.from(at, (place) => distinct[place]);
  };
  const unpacked = (all, parameter) => all.map((each) => {
    const column = columnOf(each);
    const distinct = [...new Set(column)].filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
    return { ...each, parameter, column, distinct };
  });
  const parameters = unpacked(of.parameters, true);
  const figures = unpacked(of.figures, false);
  const figure = (name) => figures.find((each) => each.name === name);

  // Numbers of the rules keep all their digits; figures are read, not typed.
  const text = (what, value) => {
    if (Number.isNaN(value)) return "–";
    if (what.parameter) return String(value);
    if (what.kind === "s") return lasting(value * 1000);
    return what.kind === "share" ? percent(value) : number(value);
  };
  const marks = { able: index(of.able), front: index(of.front), accepted: index(of.accepted) };
  const setting = columnOf(of.setting);
  const origin = index(of.origin), reason = index(of.reason);

  // Best first: the chosen one, then by the objectives; what misses a requirement, or was refused, last.
  const aims = of.objectives.map(([name, largest]) => [figure(name).column, largest ? -1 : 1]);
  const before = (a, b) => {
    if (a === of.best || b === of.best) return a === of.best ? -1 : 1;
    const kind = marks.accepted[b] - marks.accepted[a] || marks.able[b] - marks.able[a];
    if (kind) return kind;
    for (const [values, sign] of aims) {
      const x = values[a], y = values[b];
      if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
      if (x !== y && !Number.isNaN(x)) return sign * (x - y);
    }
    return a - b;
  };
  const ranked = Array.from({ length: n }, (_, i) => i).sort((a, b) => (a === b ? 0 : before(a, b)));
  const rank = new Uint32Array(n);
  ranked.forEach((row, place) => { rank[row] = place; });

  const bestWord = of.mark;
  const names = (row) => [
    row === of.given ? "given rules" : "", row === of.best ? bestWord : "",
    marks.front[row] ? "front" : "", marks.accepted[row] ? "" : "refused",
    marks.accepted[row] && !marks.able[row] ? "misses a requirement" : "",
  ].filter(Boolean);

  // A name may break after its dots and underscores, and nowhere else.
  const broken = (name) => name.split(/(?<=[._])/).flatMap((part, i) =>
    (i ? [document.createElement("wbr"), part] : [part]));

  let picked = of.best;
  const listeners = [];
  const pick = (row) => {
    picked = row;
    for (const told of listeners) told(row);
  };
  return {
    of, n, parameters, figures, figure, text, marks, setting, ranked, rank, names, broken, pick, bestWord,
    picked: () => picked, onPick: (told) => listeners.push(told),
    origin: (row) => of.origins[origin[row]], reason: (row) => of.reasons[reason[row]],
  };
})();
