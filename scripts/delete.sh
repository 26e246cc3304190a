#!/bin/sh
# Deletes a function.
#
# delete.sh NAME

set -eu
. "$(dirname "$0")/node.sh"
usage 1 "NAME" "$@"
need curl

call /delete --data "{\"name\":$(json "$1")}"
