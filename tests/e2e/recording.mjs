// Writes docs/terminal.svg from the recording that .ci/recording made: node recording.mjs SESSION SVG-TERM

import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";

const [session, library] = process.argv.slice(2);
const { render } = createRequire(import.meta.url)(library);

const [head, ...events] = (await readFile(session, "utf8")).trim().split("\n");
// What comes with and after the end of the alternate screen is an empty terminal; the picture rests on the last full one.
const shown = events.slice(0, events.findIndex((event) => event.includes("\\u001b[?1049l")));
const [last] = JSON.parse(shown.at(-1));
// The frames stand side by side: a column more each, so that none reaches into the next.
const { width, ...rest } = JSON.parse(head);
const wider = JSON.stringify({ ...rest, width: width + 1 });
const cast = [wider, ...shown, JSON.stringify([last + 6, "o", "\u001b[m"])].join("\n");

const theme = {
  ...{ 0: [36, 41, 47], 1: [255, 123, 114], 2: [126, 231, 135], 3: [242, 204, 96] },
  ...{ 4: [121, 192, 255], 5: [210, 168, 255], 6: [118, 227, 234], 7: [201, 209, 217] },
  ...{ 8: [125, 133, 144], 9: [255, 123, 114], 10: [126, 231, 135], 11: [242, 204, 96] },
  ...{ 12: [121, 192, 255], 13: [210, 168, 255], 14: [118, 227, 234], 15: [240, 246, 252] },
  ...{ background: [22, 27, 34], text: [201, 209, 217], bold: [240, 246, 252], cursor: [125, 133, 144] },
  fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
};
const svg = render(cast, { theme, paddingX: 14, paddingY: 8, fps: 12 });
await writeFile(new URL("../../docs/terminal.svg", import.meta.url), svg);
