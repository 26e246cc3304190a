'use strict';
// What a function's errors look like to its callers and in its log.

/** The function's message for its caller. */
function describe(error) {
  try {
    if (error instanceof Error || typeof error?.message === 'string') {
      return `${error.name || 'Error'}: ${error.message}`;
    }
    return typeof error === 'string' ? error : require('util').inspect(error);
  } catch {
    return 'the function threw something that cannot be shown';
  }
}

/** A stack without the frames of this file, which tell the function's author nothing. */
function stackOf(error) {
  const stack = error instanceof Error ? error.stack || describe(error) : describe(error);
  return cut(stack);
}

function cut(stack) {
  const isOurs = (line) => line.includes(`${__dirname}/`) || /node:(internal|async_hooks)/.test(line);
  const lines = stack.split('\n').filter((line) => !(/^\s+at /.test(line) && isOurs(line)));
  return lines.join('\n');
}

/** The error, with those frames cut from its stack and its causes' stacks. */
function withoutOurs(error) {
  let one = error;
  for (let depth = 0; one instanceof Error && depth < 8; depth++) {
    try {
      if (typeof one.stack === 'string') one.stack = cut(one.stack);
      one = one.cause;
    } catch {
      break;
    }
  }
  return error;
}

module.exports = { describe, stackOf, withoutOurs };
