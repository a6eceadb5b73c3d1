// The table of all episodes: sorted, filtered, a page at a time.
(() => {
  "use strict";
  const { values, LEVELS, byId, element, moment, lasting } = tocsin;
  const of = values.episodes;
  const since = values.span[0];
  const body = byId("rows"), count = byId("count"), empty = byId("none");
  const search = byId("search"), least = byId("least"), verdict = byId("verdict"), category = byId("category");
  const n = of.source.length;
  const PAGE = 50;
  const VERDICTS = ["", "explained", "false alarm"];
  let order = "peak", descending = true, page = 0, found = [];

  if (!of.verdicts) for (const each of document.querySelectorAll(".of-truth")) each.remove();
  of.categories.forEach((name, i) => {
    if (of.category.includes(i)) category.append(element("option", { value: i }, name.replaceAll("_", " ")));
  });
  const text = of.ids.map((id, i) => `${id} ${of.names[i]}`.toLowerCase());
  const rank = (list) => {
    const sorted = list.map((word, i) => [word, i]).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    const place = [];
    sorted.forEach(([, i], at) => { place[i] = at; });
    return place;
  };
  const idRank = rank(of.ids), wordRank = rank(of.words);
  const KEYS = {
    start: (i) => of.start[i], source: (i) => idRank[of.source[i]], peak: (i) => of.peak[i],
    lasted: (i) => of.lasted[i], score: (i) => of.score[i], alarms: (i) => of.alarms[i],
    why: (i) => wordRank[of.why[i]], verdict: (i) => of.verdict[i],
  };

  const select = () => {
    const wanted = search.value.trim().toLowerCase();
    const level = +least.value, kind = category.value === "" ? -1 : +category.value;
    const asked = verdict ? +verdict.value : 0;
    found = [];
    for (let i = 0; i < n; i += 1) {
      if (of.peak[i] < level) continue;
      if (kind >= 0 && of.category[of.source[i]] !== kind) continue;
      if (asked && of.verdict[i] !== asked) continue;
      if (wanted && !text[of.source[i]].includes(wanted) && !of.words[of.why[i]].toLowerCase().includes(wanted)) continue;
      found.push(i);
    }
    const key = KEYS[order], sign = descending ? -1 : 1;
    found.sort((a, b) => sign * (key(a) - key(b)) || of.start[a] - of.start[b]);
    page = 0;
    show();
  };

  const chip = (level) => {
    const bars = element("b", { "aria-hidden": "true" });
    for (let k = 0; k < 4; k += 1) bars.append(element("i", k < level ? { class: "on" } : {}));
    return element("span", { class: `chip level ${LEVELS[level]}` }, bars, LEVELS[level]);
  };
  const line = (i) => {
    const strip = of.strip[i] < 0 ? "" : element("a", { href: `#strip-${of.strip[i]}` }, "strip");
    const cells = [
      ["t wide-only", moment(since + of.start[i])],
      ["id", of.ids[of.source[i]], element("span", { class: "sub" }, of.names[of.source[i]]),
        element("span", { class: "sub narrow-only" }, `${moment(since + of.start[i], false)}, ${of.words[of.why[i]]}`)],
      ["", chip(of.peak[i])],
      ["n", lasting(of.lasted[i]) + (of.running[i] ? ", running" : "")],
      ["n wide-only", of.score[i].toFixed(0)],
      ["n wide-only", String(of.alarms[i])],
      ["wide-only", of.words[of.why[i]]],
      ...(of.verdicts ? [["wide-only", VERDICTS[of.verdict[i]]]] : []),
      ["", strip],
    ];
    return element("tr", {}, ...cells.map(([kind, ...parts]) => element("td", { class: kind }, ...parts)));
  };
  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    const first = page * PAGE;
    body.replaceChildren(...found.slice(first, first + PAGE).map(line));
    const last = Math.min(first + PAGE, found.length);
    const all = found.length === n ? "" : ` of ${n.toLocaleString("en")}`;
    count.textContent = found.length
      ? `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${found.length.toLocaleString("en")} episodes${all && ` (filtered${all})`}`
      : "";
    empty.hidden = found.length > 0;
    empty.textContent = n ? "No episode matches the filter." : "No episode: no source was raised.";
    byId("back").disabled = page === 0;
    byId("on").disabled = page >= pages - 1;
    byId("save").disabled = !found.length;
    for (const head of document.querySelectorAll("#all th[data-key]")) {
      const sorted = head.dataset.key === order;
      head.setAttribute("aria-sort", sorted ? (descending ? "descending" : "ascending") : "none");
    }
  };

  for (const head of document.querySelectorAll("#all th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.key;
      descending = key === order ? !descending : !["start", "source", "why"].includes(key);
      order = key;
      select();
    });
  }
  for (const field of [search, least, verdict, category]) {
    if (field) field.addEventListener("input", select);
  }
  byId("back").addEventListener("click", () => { page -= 1; show(); });
  byId("on").addEventListener("click", () => { page += 1; show(); });
  byId("clear").addEventListener("click", () => {
    search.value = ""; least.value = "1"; category.value = "";
    if (verdict) verdict.value = "0";
    select();
  });

  // What a spreadsheet might take for a formula is led by an apostrophe.
  const field = (value) => {
    let words = String(value);
    if (/^[=+\-@\t\r]/.test(words)) words = `'${words}`;
    return /[",\n\r]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  byId("save").addEventListener("click", () => {
    const heads = ["start", "source", "name", "peak", "lasted_s", "running", "score", "alarms", "signal"];
    if (of.verdicts) heads.push("truth");
    const lines = found.map((i) => [
      `${moment(since + of.start[i])} ${values.zone}`, of.ids[of.source[i]], of.names[of.source[i]], LEVELS[of.peak[i]],
      of.lasted[i] / 1000, of.running[i], of.score[i], of.alarms[i], of.words[of.why[i]],
      ...(of.verdicts ? [VERDICTS[of.verdict[i]]] : []),
    ].map(field).join(","));
    const file = new Blob([[heads.join(","), ...lines].join("\r\n"), "\r\n"], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(file), download: "episodes.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-find]");
    if (!link) return;
    search.value = link.dataset.find;
    select();
    byId("episodes").scrollIntoView();
    search.focus({ preventScroll: true });
  });
  select();
})();
