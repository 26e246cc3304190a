#!/bin/sh
# Lists the functions, a name a line.
#
# list.sh

set -eu
. "$(dirname "$0")/node.sh"
need curl

call /list
