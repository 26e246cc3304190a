#!/bin/sh
# Shows what functions printed: all of them, or one.
#
# logs.sh [NAME]

set -eu
. "$(dirname "$0")/node.sh"
need curl

if [ "$#" -gt 0 ]; then
    call /logs --get --data-urlencode "name=$1"
else
    call /logs
fi
