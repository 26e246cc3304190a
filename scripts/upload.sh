#!/bin/sh
# Deploys a function from a folder.
#
# upload.sh DIR NAME ENV THREADS [K=V...]

set -eu
. "$(dirname "$0")/node.sh"
usage 4 "DIR NAME ENV THREADS [K=V...]" "$@"
need curl zip base64

dir="$1" name="$2" env="$3" threads="$4"
shift 4

request="$(mktemp)"
trap 'rm -f "$request"' EXIT
trap 'exit 130' INT TERM
{
    printf '{"name":%s,"env":%s,"threads":%s,"envs":%s,"zip":"' \
        "$(json "$name")" "$(json "$env")" "$(json "$threads")" "$(json_list "$@")"
    (cd "$dir" && zip -q -r -y - . -x '.git/*' '*/__pycache__/*' '__pycache__/*') | base64 | tr -d '\n'
    printf '"}'
} >"$request"
call /upload --data-binary "@$request"
