// The table of all settings: sorted, filtered by conditions, a page at a time.
(() => {
  "use strict";
  const { byId, element, LEVELS } = tocsin;
  const { of, n, parameters, figures, figure, text, marks, setting, names, rank } = study;
  const PAGE = 50;
  const heads = byId("heads"), body = byId("rows"), count = byId("count"), empty = byId("none");
  const kind = byId("kind"), where = byId("where"), level = byId("level"), every = byId("every");
  const fault = byId("where-fault");
  const OF_LEVEL = ["found", "missed", "enough", "delay_median_s", "delay_worst_s", "false", "false_per_sensor_day"];
  let order = "best", descending = false, page = 0, found = [];

  if (of.truth) {
    for (const name of LEVELS.slice(1).filter((each) => figure(`missed_${each}`))) {
      const option = element("option", { value: name }, name);
      option.selected = name === of.level;
      level.append(option);
    }
  } else {
    for (const each of document.querySelectorAll(".of-truth")) each.remove();
  }
  byId("where-names").append(...[...parameters, ...figures].map((each) => element("option", { value: `${each.name} <= ` })));
  if (!marks.able.includes(0)) kind.querySelector("[value=unable]").remove();
  if (!marks.accepted.includes(0)) kind.querySelector("[value=refused]").remove();

  const aims = [...of.objectives, ...of.requirements].map(([name]) => figure(name));
  const columns = () => {
    const wanted = every.checked ? figures : [
      ...(of.truth ? OF_LEVEL.map((base) => figure(`${base}_${level.value}`)) : []),
      ...of.first.filter((name) => !LEVELS.slice(1).some((each) => name.endsWith(`_${each}`))).map(figure),
    ];
    return [...new Set([...aims, ...parameters, ...wanted.filter(Boolean)])];
  };
  const keyOf = (what) => `${what.parameter ? "p" : "f"}:${what.name}`;
  const all = new Map([...parameters, ...figures].map((each) => [keyOf(each), each]));

  // Conditions: NAME SIGN NUMBER, several with commas. A part of a name will do if only one has it.
  const TESTS = {
    "<=": (a, b) => a <= b, "≤": (a, b) => a <= b, ">=": (a, b) => a >= b, "≥": (a, b) => a >= b,
    "<": (a, b) => a < b, ">": (a, b) => a > b, "=": (a, b) => a === b, "==": (a, b) => a === b,
    "!=": (a, b) => a !== b, "≠": (a, b) => a !== b,
  };
  const named = (name) => {
    const list = [...parameters, ...figures], low = name.toLowerCase();
    const whole = list.filter((each) => each.name.toLowerCase() === low);
    const part = whole.length ? whole : list.filter((each) => each.name.toLowerCase().includes(low));
    if (part.length === 1) return part[0];
    if (!part.length) throw new Error(`nothing is called ${name}`);
    throw new Error(`${name} may be ${part.slice(0, 4).map((each) => each.name).join(", ")}${part.length > 4 ? ", …" : ""}`);
  };
  const condition = (words) => {
    const parts = words.match(/^(.+?)\s*(<=|>=|==|!=|≤|≥|≠|<|>|=)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*%?$/i);
    if (!parts || Number.isNaN(+parts[3])) throw new Error(`“${words}” does not read NAME <= NUMBER`);
    const what = named(parts[1].trim());
    const bound = +parts[3] / (/%$/.test(words) && what.kind === "share" ? 100 : 1);
    const test = TESTS[parts[2]];
    return (i) => !Number.isNaN(what.column[i]) && test(what.column[i], bound);
  };
  const conditions = () => {
    const read = [];
    const faults = [];
    for (const words of where.value.split(/,|\band\b/).map((each) => each.trim()).filter(Boolean)) {
      try { read.push(condition(words)); } catch (error) { faults.push(error.message); }
    }
    fault.textContent = faults.join("; ");
    return read;
  };
  const KINDS = {
    all: () => true, front: (i) => marks.front[i], able: (i) => marks.able[i],
    unable: (i) => marks.accepted[i] && !marks.able[i], refused: (i) => !marks.accepted[i],
  };
  const key = () => {
    if (order === "best") return (i) => rank[i];
    if (order === "setting") return (i) => setting[i];
    return (i) => all.get(order).column[i];
  };
  const select = () => {
    const tests = [KINDS[kind.value], ...conditions()];
    found = [];
    for (let i = 0; i < n; i += 1) if (tests.every((test) => test(i))) found.push(i);
    const by = key(), sign = descending ? -1 : 1;
    found.sort((a, b) => {
      const x = by(a), y = by(b);
      // what has no figure comes last, whichever way
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || rank[a] - rank[b];
      return sign * (x - y) || rank[a] - rank[b];
    });
    page = 0;
    show();
  };
  const head = (name, title, words, kindOf) => {
    const button = element("button", { type: "button", title: words }, ...study.broken(title));
    button.addEventListener("click", () => {
      if (order === name) descending = !descending;
      else descending = all.has(name) && all.get(name).better === 1;
      order = name;
      select();
      [...heads.children].find((each) => each.dataset.key === name).querySelector("button").focus();
    });
    return element("th", { scope: "col", class: kindOf, "data-key": name,
      "aria-sort": order === name ? (descending ? "descending" : "ascending") : "none" }, button);
  };
  const MARKS = [["given rules", "▲"], ["chosen", "■"], ["nearest", "■"], ["best so far", "■"], ["front", "◆"], ["refused", "✗"], ["misses a requirement", "×"]];
  const line = (i, shown) => {
    const pick = element("button", { type: "button", class: "link", "data-pick": i }, `#${setting[i]}`);
    const called = names(i).map((name) => `${(MARKS.find(([each]) => each === name) || ["", ""])[1]} ${name}`);
    return element("tr", i === study.picked() ? { class: "is-picked" } : {},
      element("td", { class: "what" }, pick, element("span", { class: "sub" }, called.join(", ") || study.origin(i)),
        ...(study.reason(i) ? [element("span", { class: "sub why" }, study.reason(i))] : [])),
      ...shown.map((what) => element("td", { class: `n${what.parameter && !Object.is(what.column[i], what.column[of.given]) ? " moved" : ""}` },
        text(what, what.column[i]))));
  };
  const show = () => {
    const shown = columns();
    if (all.has(order) && !shown.some((what) => keyOf(what) === order)) { order = "best"; descending = false; select(); return; }
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    const begin = page * PAGE;
    heads.replaceChildren(
      head("best", "Setting", "By the objectives, the best first", "what"),
      ...shown.map((what) => head(keyOf(what), what.name, what.words || "a parameter", "n")));
    body.replaceChildren(...found.slice(begin, begin + PAGE).map((i) => line(i, shown)));
    const end = Math.min(begin + PAGE, found.length);
    const whole = found.length === n ? "" : ` (filtered of ${n.toLocaleString("en")})`;
    count.textContent = found.length
      ? `${(begin + 1).toLocaleString("en")}–${end.toLocaleString("en")} of ${found.length.toLocaleString("en")} settings${whole}` : "";
    empty.hidden = found.length > 0;
    empty.textContent = "No setting matches the filter.";
    byId("back").disabled = page === 0;
    byId("on").disabled = page >= pages - 1;
    byId("save").disabled = !found.length;
  };
  for (const field of [kind, where]) field.addEventListener("input", select);
  for (const field of [level, every]) field.addEventListener("input", show);
  byId("back").addEventListener("click", () => { page -= 1; show(); });
  byId("on").addEventListener("click", () => { page += 1; show(); });
  byId("clear").addEventListener("click", () => { kind.value = "all"; where.value = ""; select(); });
  body.addEventListener("click", (event) => {
    const link = event.target.closest("[data-pick]");
    if (!link) return;
    study.pick(+link.dataset.pick);
    byId("trade-offs").scrollIntoView();
  });
  study.onPick(() => {
    for (const each of body.children) {
      each.classList.toggle("is-picked", +each.querySelector("[data-pick]").dataset.pick === study.picked());
    }
  });

  // What a spreadsheet might take for a formula is led by an apostrophe; numbers stay numbers.
  const field = (value) => {
    if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
    let words = String(value);
    if (/^[=+\-@\t\r]/.test(words)) words = `'${words}`;
    return /[",\n\r]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  byId("save").addEventListener("click", () => {
    const shown = [...parameters, ...figures];
    const lines = [["setting", "marks", ...shown.map((what) => what.name), "refused"],
      ...found.map((i) => [setting[i], names(i).join("; "), ...shown.map((what) => what.column[i]), study.reason(i)])];
    const file = new Blob([lines.map((each) => each.map(field).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(file), download: "settings.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  select();
})();
