'use strict';
// Looks at a folder, again and again, until it holds too much; after SIGTERM once more.

const fs = require('fs');

const [TOO_MANY_BYTES, UNREADABLE] = [11, 12];
// What every file counts at least: an empty one takes room, too.
const ENTRY_BYTES_MIN = 4096;
// A look rests for so many times as long as it took, and at least so many milliseconds.
const REST_FACTOR = 3;
const REST_MS_MIN = 250;
const SLASH = Buffer.from('/');

const [folder, bytesMax] = [process.argv[1], Number(process.argv[2])];
let isLast = false;
let timer;

function look() {
  let size = 0;
  // Bytes, since a name need not be text.
  const waiting = [Buffer.from(folder)];
  while (waiting.length > 0) {
    const path = waiting.pop();
    try {
      for (const name of fs.readdirSync(path, { encoding: 'buffer' })) {
        const child = Buffer.concat([path, SLASH, name]);
        const stat = fs.lstatSync(child, { throwIfNoEntry: false });
        if (!stat) continue;
        size += Math.max(stat.blocks * 512, ENTRY_BYTES_MIN);
        if (size > bytesMax) process.exit(TOO_MANY_BYTES);
        if (stat.isDirectory()) waiting.push(child);
      }
    } catch (error) {
      // It went meanwhile.
      if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') process.exit(UNREADABLE);
    }
  }
}

function round() {
  const wasLast = isLast;
  const begun = Date.now();
  look();
  if (wasLast) process.exit(0);
  timer = setTimeout(round, Math.max(REST_MS_MIN, (Date.now() - begun) * REST_FACTOR));
}

process.on('SIGTERM', () => {
  if (isLast) return;
  isLast = true;
  clearTimeout(timer);
  round();
});
round();
