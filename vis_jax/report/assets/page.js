// Puts the page together from its content.

const content = JSON.parse(document.getElementById("content").textContent);
const page = document.getElementById("page");
const settings = {
  classes: content.classes, classesHidden: new Set(), hidden: new Set(),
  opacity: 0.45, least: 0, labels: true, byClass: false,
};
let viewer = null;
let chosen = -1;

const COUNTS = new Set(["IDSW", "tracks", "frames", "classes"]);
const SINGULAR = { tracks: "track", frames: "frame", classes: "class" };

function header() {
  const files = content.files.map(([label, name]) =>
    make("span", {}, `${label} `, make("code", {}, name)));
  return make("header", {},
    make("p", { class: "eyebrow" }, "vis_jax report"),
    make("h1", {}, content.title),
    make("p", { class: "files" }, files));
}

function numbers() {
  return make("section", { class: "numbers", id: "numbers" },
    content.summary.map(([name, value], i) =>
      make("div", { class: i ? "number" : "number main" },
        make("strong", {}, COUNTS.has(name) || typeof value === "string" ? String(value ?? "–") : percent(value)),
        make("span", {}, value === 1 ? SINGULAR[name] ?? name : name))));
}

// ---- the list of videos

const ORDERS = {
  "lowest AP first": (a, b) => (a.AP ?? 2) - (b.AP ?? 2),
  "most switches first": (a, b) => switches(b) - switches(a),
  "most misses first": (a, b) => (b.errors?.miss ?? 0) - (a.errors?.miss ?? 0),
  "by name": (a, b) => a.name.localeCompare(b.name),
};

function switches(video) {
  return (video.truths ?? []).reduce((sum, track) => sum + track.switches.length, 0);
}

function videoRow(video) {
  const place = content.videos.indexOf(video);
  const errors = Object.entries(video.errors ?? {}).map(([kind, n]) => `${n} ${kind}`);
  const detail = video.masks ? "" : " (masks left out to keep the file small)";
  return make("button",
    {
      class: "video-row", type: "button", "data-video": place, disabled: !video.masks,
      "aria-current": place === chosen ? "true" : null, title: errors.join(", ") + detail,
      onclick: () => open(place),
    },
    make("span", { class: "clipped" }, video.name),
    make("span", { class: "bar-track" },
      styled(make("span", { class: "filled" }), { width: `${100 * (video.AP ?? 0)}%` })),
    make("span", { class: "bar-value" }, percent(video.AP)));
}

function videoList() {
  const rows = make("div", { class: "video-rows", id: "video-rows" });
  const list = () => {
    const wanted = filter.value.toLowerCase();
    const shown = content.videos.filter((video) => video.name.toLowerCase().includes(wanted));
    rows.replaceChildren(...shown.sort(ORDERS[order.value]).map(videoRow));
  };
  const order = make("select", { id: "order", "aria-label": "order", onchange: list },
    Object.keys(ORDERS).map((name) => make("option", {}, name)));
  const filter = make("input", { type: "search", id: "filter", placeholder: "find a video", "aria-label": "find a video", oninput: list });
  list();
  return make("div", { class: "video-list" },
    make("h2", {}, plural(content.videos.length, "video")), order, filter, rows);
}

// ---- what is drawn

function redraw() {
  viewer?.draw();
}

function classChips() {
  return make("div", { class: "chips", id: "chips" }, content.classes.map((name, k) => {
    const chip = make("button",
      {
        class: "chip", type: "button", "aria-pressed": "true", "data-class": k,
        onclick: () => {
          const off = !settings.classesHidden.delete(k);
          if (off) settings.classesHidden.add(k);
          chip.setAttribute("aria-pressed", String(!off));
          redraw();
        },
      }, name);
    return chip;
  }));
}

function slider(id, label, value, change) {
  const input = make("input", { type: "range", id, min: 0, max: 1, step: 0.05, value, oninput: () => { text.textContent = (+input.value).toFixed(2); change(+input.value); redraw(); } });
  const text = make("span", { class: "bar-value" }, (+value).toFixed(2));
  return make("label", {}, label, input, text);
}

function check(id, label, value, change) {
  const input = make("input", { type: "checkbox", id, checked: value, onchange: () => { change(input.checked); redraw(); } });
  return make("label", {}, input, label);
}

function options() {
  return make("div", { class: "options" },
    slider("least", "score from", settings.least, (v) => (settings.least = v)),
    slider("opacity", "opacity", settings.opacity, (v) => (settings.opacity = v)),
    check("labels", "names", settings.labels, (v) => (settings.labels = v)),
    check("by-class", "colours by class", settings.byClass, (v) => (settings.byClass = v)));
}

// ---- the viewer

const stage = make("div", { class: "stage" });

function every(step) {
  const names = { 1: null, 2: "every second one is shown", 3: "every third one is shown" };
  return step in names ? names[step] : `every ${step}th one is shown`;
}

function open(place) {
  viewer?.close();
  chosen = place;
  const video = content.videos[place];
  video.scored = content.kind === "score";
  viewer = new Viewer(video, settings, video.speed ?? 6);
  const facts = [plural(video.frames, "frame"), every(video.step),
    `${video.width} × ${video.height}`, video.AP === undefined ? null : `AP ${percent(video.AP)}`];
  stage.replaceChildren(
    make("div", { class: "stage-head" },
      make("h2", { id: "video-name", class: "clipped" }, video.name),
      make("span", { class: "note" }, facts.filter(Boolean).join(" · "))),
    viewer.element);
  document.querySelectorAll(".video-row").forEach((row) => {
    if (+row.dataset.video === place) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  });
  viewer.draw();
}

const KEYS = {
  ArrowRight: () => viewer.jump(viewer.frame + 1),
  ArrowLeft: () => viewer.jump(viewer.frame - 1),
  Home: () => viewer.jump(0),
  End: () => viewer.jump(viewer.video.frames - 1),
  " ": () => viewer.play(),
  j: () => next(1),
  k: () => next(-1),
};

function next(step) {
  const rows = [...document.querySelectorAll(".video-row:not([disabled])")].map((r) => +r.dataset.video);
  const to = rows[rows.indexOf(chosen) + step];
  if (to !== undefined) open(to);
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=range]), select");
  const pressing = event.key === " " && event.target.closest("button");
  if (!viewer || typing || pressing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

const scored = content.kind === "score";
const several = content.videos.length > 1;
const keys = make("p", { class: "note keys" },
  ["← →", " frame   ", "space", " play   ", several ? "j k" : null, several ? " next, previous video" : null]
    .map((part, i) => (part && i % 2 === 0 ? make("kbd", {}, part) : part)));
page.append(header(), numbers(),
  make("section", { class: `card videos${several ? "" : " single"}` },
    several ? videoList() : null,
    make("div", { class: "stage-side" }, stage, options(), classChips(), keys)));
if (scored) {
  const left = make("div", {},
    card("What AP50 is lost to", "Points gained if all errors of one kind were mended, and how many there are.", errorBars(content.errors)),
    card("Classes", "AP, lowest first.", classBars(content.categories)));
  const right = make("div", {},
    card("With one thing perfect", "AP if all classes, masks or identities were right, and the gain.", oracleBars(content.oracles)),
    card("Precision and recall", "Means over the classes.", curveChart(content.curves, content.classes)));
  page.append(make("div", { class: "columns" }, left, right));
}
const first = content.videos.findIndex((video) => video.masks);
if (first >= 0) open(first);
else stage.append(make("p", { class: "note" }, "No video has frames to show."));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
