// Bars and curves.

const KINDS = {
  classification: "right masks, wrong class",
  localisation: "right object, masks too far off",
  duplicate: "a second prediction of one object",
  background: "on nothing that is annotated",
  miss: "an object that nothing is about",
  switch: "goes over to another object",
  fragment: "right masks, wrong extent in time",
  both: "wrong class and masks too far off",
};

// One bar of a length in [0, scale]; its part up to `base` is lighter.
function bar(label, value, text, { note = null, scale = 1, base = null } = {}) {
  const filled = styled(make("span", { class: "filled" }), {
    width: `${Math.max(0, Math.min(1, (value ?? 0) / scale)) * 100}%`,
  });
  const inner = base === null ? null : styled(make("span", { class: "base" }), {
    width: `${Math.max(0, Math.min(1, base / scale)) * 100}%`,
  });
  return make(
    "div",
    { class: "bar-row", title: note },
    make("span", { class: "bar-label" }, label, note ? make("small", {}, note) : null),
    make("span", { class: "bar-track" }, filled, inner),
    make("span", { class: "bar-value" }, text),
  );
}

function errorBars(errors) {
  const kinds = [...errors].sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0));
  const scale = Math.max(0.01, ...kinds.map((kind) => kind[1] ?? 0));
  const rows = kinds.map(([kind, lost, count]) =>
    bar(kind, lost, make("span", {}, percent(lost), make("small", {}, ` ${count} ×`)), {
      note: KINDS[kind],
      scale,
    }),
  );
  return make("div", { class: "bars errors", id: "errors" }, rows);
}

function oracleBars(oracles) {
  const own = oracles["as it is"];
  const rows = Object.entries(oracles).map(([name, ap]) => {
    const gain = name === "as it is" || ap === null ? null : ap - own;
    const label = name === "as it is" ? name : `perfect ${name}`;
    const sign = gain === null ? "" : ` ${gain < 0 ? "−" : "+"}${percent(Math.abs(gain))}`;
    const text = make("span", {}, percent(ap), make("small", {}, sign));
    return bar(label, ap, text, { base: own === null || !sign ? null : own });
  });
  return make("div", { class: "bars oracles", id: "oracles" }, rows);
}

function classBars(categories) {
  const rows = [...categories]
    .sort((a, b) => (a.AP ?? 2) - (b.AP ?? 2))
    .map((one) =>
      bar(one.name, one.AP, percent(one.AP), { note: `${plural(one.tracks, "track")}` }),
    );
  return make("div", { class: "bars classes", id: "classes" }, rows);
}

function curveChart(curves, classes) {
  const [width, height, left, bottom, pad, top] = [460, 310, 40, 34, 10, 26];
  const x = (recall) => left + recall * (width - left - pad);
  const y = (precision) => height - bottom - precision * (height - bottom - top);
  const chart = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "chart", id: "curves", role: "img",
    "aria-label": "precision by recall",
  });
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(
      drawn("line", { x1: x(0), x2: x(1), y1: y(tick), y2: y(tick), class: "grid" }),
      drawn("text", { x: left - 6, y: y(tick) + 4, class: "tick end" }, `${100 * tick}`),
      drawn("text", { x: x(tick), y: height - bottom + 16, class: "tick mid" }, `${100 * tick}`),
    );
  }
  chart.append(drawn("text", { x: x(0.5), y: height - 2, class: "axis mid" }, "recall, %"));
  chart.append(drawn("text", { x: 2, y: 11, class: "axis" }, "precision, %"));
  const path = (values) =>
    values.map((v, i) => `${i ? "L" : "M"}${x(i / 100).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const chosen = drawn("path", { class: "curve chosen", id: "curve-of-class" });
  const legend = make("div", { class: "legend" });
  Object.entries(curves.mean).forEach(([name, values], i) => {
    chart.append(drawn("path", { d: path(values), class: `curve curve-${i}` }));
    legend.append(make("span", { class: `key key-${i}` }, name));
  });
  chart.append(chosen);
  const pick = make(
    "select",
    {
      id: "curve-class",
      "aria-label": "class with a curve of its own",
      onchange: () => {
        const values = curves.classes[pick.value];
        chosen.setAttribute("d", values ? path(values) : "");
      },
    },
    make("option", { value: "" }, "one class at IoU 0.50 …"),
    Object.keys(curves.classes).map((k) => make("option", { value: k }, classes[k])),
  );
  legend.append(pick);
  return make("div", {}, chart, legend);
}
