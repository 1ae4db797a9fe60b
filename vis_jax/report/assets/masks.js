// Run lengths to pixels. The code is that of the COCO API (rleFrString in maskApi.c),
// column by column, with three characters replaced (tubes.py).

const FROM_PAGE = { "!": "<", "#": ">", $: "\\" };

function runLengths(text) {
  const counts = [];
  let at = 0;
  while (at < text.length) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const sign = text[at++];
      const code = (FROM_PAGE[sign] ?? sign).charCodeAt(0) - 48;
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && code & 16) value |= -1 << shift;
    }
    if (counts.length > 2) value += counts[counts.length - 2];
    counts.push(value);
  }
  return counts;
}

// The run lengths of a track in a shown frame, or null.
function maskOf(track, frame) {
  const text = track.masks[frame - track.start];
  if (!text) return null;
  track.decoded ??= new Map();
  if (!track.decoded.has(frame)) track.decoded.set(frame, runLengths(text));
  return track.decoded.get(frame);
}

// Which track each pixel shows, 0 for none and else its place + 1; later tracks lie on
// top. Also the highest pixel of each, to put its label on.
function layers(tracks, frame, height, width) {
  const owners = new Uint16Array(height * width);
  const anchors = [];
  tracks.forEach((track, place) => {
    const counts = maskOf(track, frame);
    if (!counts) return;
    let at = 0, top = height, left = width, right = 0;
    counts.forEach((count, i) => {
      if (i % 2 && count) {
        owners.fill(place + 1, at, at + count);
        top = at % height + count > height ? 0 : Math.min(top, at % height);
        left = Math.min(left, Math.floor(at / height));
        right = Math.max(right, Math.floor((at + count - 1) / height));
      }
      at += count;
    });
    if (right >= left) anchors.push({ track, x: (left + right + 1) / 2, y: top });
  });
  return { owners, anchors };
}

function channels(colour) {
  return [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
}

// Colours of the pixels: filled with some opacity, outlined without any.
function paintLayers(owners, colours, height, width, opacity) {
  const image = new ImageData(width, height);
  const border = Math.max(1, Math.round(Math.min(height, width) / 240));
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      const at = x * height + y;
      const owner = owners[at];
      if (!owner) continue;
      const edge =
        x < border || x >= width - border || y < border || y >= height - border ||
        owners[at - border] !== owner || owners[at + border] !== owner ||
        owners[at - border * height] !== owner || owners[at + border * height] !== owner;
      const [red, green, blue] = colours[owner - 1];
      const to = 4 * (y * width + x);
      image.data[to] = red;
      image.data[to + 1] = green;
      image.data[to + 2] = blue;
      image.data[to + 3] = edge ? 255 : 255 * opacity;
    }
  }
  return image;
}
