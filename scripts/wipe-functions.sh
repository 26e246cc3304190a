#!/bin/sh
# Deletes every function.
#
# wipe-functions.sh

set -eu
. "$(dirname "$0")/node.sh"
need curl

call /wipe --request POST
