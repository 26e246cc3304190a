'use strict';
// Looks at a folder, again and again, until it holds too much or its disk has too little space; after
// SIGTERM once more.

const fs = require('fs');

const [TOO_MANY_BYTES, UNREADABLE, DISK_FULL] = [11, 12, 13];
// What every file counts at least: an empty one takes room, too.
const ENTRY_BYTES_MIN = 4096;
// A look rests for so many times as long as it took, and at least so many milliseconds.
const REST_FACTOR = 3;
const REST_MS_MIN = 250;
// The disk's free space is one question, asked more often.
const FREE_MS = 50;
const SLASH = Buffer.from('/');

const folder = process.argv[1];
const [bytesMax, freeMin] = process.argv.slice(2).map(Number);
let isLast = false;
let nextAt = 0;
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

function seeToReserve() {
  // Node.js before version 18.15 can't ask.
  if (!fs.statfsSync) return;
  const disk = fs.statfsSync(folder);
  if (disk.bavail * disk.bsize < freeMin) process.exit(DISK_FULL);
}

function round() {
  const wasLast = isLast;
  seeToReserve();
  const begun = Date.now();
  if (wasLast || begun >= nextAt) {
    look();
    const now = Date.now();
    nextAt = now + Math.max(REST_MS_MIN, (now - begun) * REST_FACTOR);
  }
  if (wasLast) process.exit(0);
  timer = setTimeout(round, FREE_MS);
}

process.on('SIGTERM', () => {
  if (isLast) return;
  isLast = true;
  clearTimeout(timer);
  round();
});
round();
