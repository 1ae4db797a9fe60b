// The frames of one video with masks on them, and what moves through them.

const CLASS_HUES = [210, 20, 130, 280, 50, 340, 170, 100, 250, 0, 80, 310];

function classColour(k) {
  const lightness = [55, 40, 70][Math.floor(k / CLASS_HUES.length) % 3];
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = `hsl(${CLASS_HUES[k % CLASS_HUES.length]} 70% ${lightness}%)`;
  return context.fillStyle; // as #rrggbb
}

function inkOn(colour) {
  const [r, g, b] = channels(colour).map((c) => (c / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

// One picture: ground truth or predictions.
class Pane {
  constructor(side, title, video, settings) {
    Object.assign(this, { side, video, settings });
    this.tracks = side === "truth" ? video.truths : video.predictions;
    this.canvas = make("canvas", { "data-pane": side, role: "img", "aria-label": title });
    const shape = video.width / video.height;
    styled(this.canvas, {
      "aspect-ratio": `${video.width} / ${video.height}`,
      width: `min(100%, ${(54 * shape).toFixed(2)}vh)`,
    });
    this.element = make("figure", {}, make("figcaption", {}, title), this.canvas);
    this.canvas.addEventListener("mousemove", (event) => this.explain(event));
  }

  visible() {
    const { hidden, classesHidden, least } = this.settings;
    return this.tracks
      .map((track, place) => ({ track, place }))
      .filter(({ track, place }) =>
        !hidden.has(`${this.side}-${place}`) && !classesHidden.has(track.class) &&
        (track.score ?? 1) >= least)
      .map(({ track }) => track)
      .reverse(); // the best ones on top
  }

  colour(track) {
    return this.settings.byClass ? classColour(track.class) : track.colour;
  }

  draw(frame, picture) {
    const { video, canvas } = this;
    const wide = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    canvas.width = wide;
    canvas.height = Math.max(1, Math.round((wide * video.height) / video.width));
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = canvas.width < 3 * video.width;
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--stage").trim() || "#222";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const shown = this.visible();
    const found = layers(shown, frame, video.height, video.width);
    this.found = { shown, owners: found.owners };
    const masks = document.createElement("canvas");
    [masks.width, masks.height] = [video.width, video.height];
    const colours = shown.map((track) => channels(this.colour(track)));
    masks.getContext("2d").putImageData(
      paintLayers(found.owners, colours, video.height, video.width, this.settings.opacity), 0, 0);
    context.drawImage(masks, 0, 0, canvas.width, canvas.height);
    if (this.settings.labels) this.label(context, found.anchors);
  }

  text(track) {
    const score = track.score === undefined || track.score === null ? "" : ` ${track.score.toFixed(2)}`;
    return `${track.name} ${this.settings.classes[track.class]}${score}`;
  }

  label(context, anchors) {
    const scale = this.canvas.width / this.video.width;
    const size = Math.max(11, Math.min(16, this.canvas.clientWidth / 40)) * (window.devicePixelRatio || 1);
    const taken = [];
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (const { track, x, y } of anchors.reverse()) {
      const text = this.text(track);
      const width = context.measureText(text).width + size * 0.7, height = size * 1.4;
      const left = Math.max(0, Math.min(this.canvas.width - width, x * scale - width / 2));
      let top = Math.max(0, y * scale - height - 2);
      for (const other of taken.sort((a, b) => a.top - b.top)) {
        const apart = left >= other.left + other.width || left + width <= other.left ||
          top >= other.top + height || top + height <= other.top;
        if (!apart) top = other.top + height;
      }
      top = Math.min(top, this.canvas.height - height);
      taken.push({ left, top, width });
      context.fillStyle = this.colour(track);
      context.beginPath();
      context.roundRect(left, top, width, height, size * 0.3);
      context.fill();
      context.fillStyle = inkOn(this.colour(track));
      context.fillText(text, left + size * 0.35, top + height / 2);
    }
  }

  // The name of the track under the pointer.
  explain(event) {
    if (!this.found) return;
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.video.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.video.height);
    const owner = this.found.owners[x * this.video.height + y];
    this.canvas.title = owner ? this.text(this.found.shown[owner - 1]) : "";
  }
}

class Viewer {
  // `settings` outlive a video: classes, classesHidden, opacity, least, labels, byClass.
  constructor(video, settings, speed) {
    Object.assign(this, { video, speed, frame: 0, timer: null });
    this.settings = settings;
    settings.hidden = new Set();
    const predicted = new Pane("prediction", "Predictions", video, settings);
    this.panes = video.truths.length || video.scored
      ? [new Pane("truth", "Ground truth", video, settings), predicted] : [predicted];
    this.pictures = (video.pictures ?? []).map(() => null);
    this.controls();
    this.lines = timeLine(video, settings.classes, this);
    this.element = make("div", { class: "viewer", id: "viewer" },
      make("div", { class: `panes panes-${this.panes.length}` }, this.panes.map((p) => p.element)),
      this.bar, this.lines);
    this.watch = new ResizeObserver(() => this.draw());
    this.panes.forEach((pane) => this.watch.observe(pane.canvas));
  }

  controls() {
    const last = this.video.frames - 1;
    this.button = make("button", { class: "play", id: "play", type: "button", title: "play or pause (space)", onclick: () => this.play() }, "▶");
    this.slider = make("input", { type: "range", id: "frame", min: 0, max: last, value: 0, "aria-label": "frame", oninput: () => this.jump(+this.slider.value) });
    this.place = make("output", { id: "frame-label" });
    this.bar = make("div", { class: "controls" }, this.button, this.slider, this.place);
  }

  // The picture of a frame, or null while it is not decoded.
  picture(frame) {
    const source = this.video.pictures?.[frame];
    if (!source) return null;
    if (!this.pictures[frame]) {
      const image = new Image();
      image.onload = () => frame === this.frame && this.draw();
      image.src = source;
      this.pictures[frame] = image;
    }
    return this.pictures[frame].complete ? this.pictures[frame] : null;
  }

  draw() {
    const { frame, video } = this;
    const picture = this.picture(frame);
    if (frame + 1 < video.frames) this.picture(frame + 1); // decoded ahead
    this.panes.forEach((pane) => pane.draw(frame, picture));
    this.slider.value = frame;
    const end = (video.frames - 1) * video.step;
    this.place.value = `frame ${frame * video.step} of ${end}`;
    styled(this.lines, { "--at": `${(100 * (frame + 0.5)) / video.frames}%` });
  }

  jump(frame) {
    this.frame = Math.max(0, Math.min(this.video.frames - 1, frame));
    this.draw();
  }

  hidden(side, place) {
    return this.settings.hidden.has(`${side}-${place}`);
  }

  toggle(side, place) {
    const key = `${side}-${place}`;
    if (!this.settings.hidden.delete(key)) this.settings.hidden.add(key);
    this.draw();
  }

  play() {
    if (this.timer) return this.pause();
    if (this.frame >= this.video.frames - 1) this.jump(0);
    this.button.textContent = "❚❚";
    this.timer = setInterval(() => {
      if (this.frame >= this.video.frames - 1) this.pause();
      else this.jump(this.frame + 1);
    }, 1000 / this.speed);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "▶";
  }

  close() {
    this.pause();
    this.watch.disconnect();
  }
}
