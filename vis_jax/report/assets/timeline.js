// A line for each track: when it is there, what covers it, where identities switch.

// Runs [first, end) of the shown frames in which a track has a mask.
function presence(track) {
  const found = [];
  track.masks.forEach((mask, i) => {
    if (!mask) return;
    const frame = track.start + i;
    const last = found[found.length - 1];
    if (last && last[1] === frame) last[1] = frame + 1;
    else found.push([frame, frame + 1]);
  });
  return found;
}

function run([first, end], frames, colour, kind) {
  return styled(make("span", { class: `run ${kind}` }), {
    left: `${(100 * first) / frames}%`,
    width: `${(100 * (end - first)) / frames}%`,
    "--colour": colour,
  });
}

// `player` has `jump(frame)`, `toggle(side, place)`, `hidden(side, place)`.
function timeLine(video, classes, player) {
  const lines = make("div", { class: "lines", id: "lines" });
  if (video.truths.length) {
    lines.append(heading("Ground truth", "in the colour of the prediction that covers it"));
    video.truths.forEach((track, g) => lines.append(truthLine(video, track, g, classes, player)));
  }
  if (video.predictions.length) {
    lines.append(heading("Predictions", "best score first"));
    video.predictions.forEach((track, d) =>
      lines.append(predictionLine(video, track, d, classes, player)),
    );
  }
  if (video.hidden) {
    const more = `${plural(video.hidden, "prediction")} of low score not shown`;
    lines.append(make("p", { class: "note" }, more));
  }
  return lines;
}

function heading(title, note) {
  return make("h3", {}, title, make("small", {}, note));
}

function line(video, side, place, player, { label, colour, parts, note }) {
  const strip = make(
    "span",
    {
      class: "strip",
      onclick: (event) => {
        const box = strip.getBoundingClientRect();
        const share = (event.clientX - box.left) / box.width;
        player.jump(Math.floor(share * video.frames));
      },
    },
    parts,
  );
  const button = make(
    "button",
    {
      class: "toggle", type: "button", "aria-pressed": "true",
      title: "show or hide", "data-toggle": `${side}-${place}`,
      onclick: () => {
        player.toggle(side, place);
        button.setAttribute("aria-pressed", String(!player.hidden(side, place)));
      },
    },
    styled(make("span", { class: "dot" }), { "--colour": colour }),
    make("span", { class: "clipped" }, label),
  );
  return make(
    "div",
    { class: "line", "data-line": `${side}-${place}` },
    button,
    strip,
    make("span", { class: "line-note" }, note),
  );
}

function truthLine(video, track, g, classes, player) {
  const parts = track.cover.map(([first, end, d]) =>
    d < 0
      ? run([first, end], video.frames, "transparent", "uncovered")
      : run([first, end], video.frames, video.predictions[d].colour, "covered"),
  );
  const marks = track.switches.map((frame) =>
    styled(
      make("button", {
        class: "switch", type: "button", "data-frame": frame,
        title: `identity switch in frame ${frame * video.step}`,
        onclick: (event) => {
          event.stopPropagation();
          player.jump(frame);
        },
      }),
      { left: `${(100 * frame) / video.frames}%` },
    ),
  );
  const note = track.switches.length
    ? make("span", { class: "bad" }, plural(track.switches.length, "switch").replace("switchs", "switches"))
    : track.missed ? make("span", { class: "bad" }, "missed") : null;
  return line(video, "truth", g, player, {
    label: `${track.name} ${classes[track.class]}`,
    colour: track.colour,
    parts: [parts, marks].flat(),
    note,
  });
}

function predictionLine(video, track, d, classes, player) {
  const parts = presence(track).map((one) => run(one, video.frames, track.colour, "present"));
  const good = track.kind === "correct" || track.kind === "ignored";
  const about = track.target === null || track.target === undefined ? "" : ` ${track.target + 1}`;
  const kind = track.kind
    ? make("span", { class: good ? "good" : "bad" }, `${track.kind}${about}`)
    : null;
  const score = track.score === null ? null : make("span", { class: "score" }, track.score.toFixed(2));
  return line(video, "prediction", d, player, {
    label: `${track.name} ${classes[track.class]}`,
    colour: track.colour,
    parts,
    note: [score, kind],
  });
}
