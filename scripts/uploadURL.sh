#!/bin/sh
# Deploys a function that the node fetches from a URL.
#
# uploadURL.sh URL SUBFOLDER NAME ENV THREADS [K=V...]

set -eu
. "$(dirname "$0")/node.sh"
usage 5 "URL SUBFOLDER NAME ENV THREADS [K=V...]" "$@"
need curl

url="$1" subfolder="$2" name="$3" env="$4" threads="$5"
shift 5

call /uploadURL --data "$(
    printf '{"name":%s,"env":%s,"threads":%s,"url":%s,"subfolder_path":%s,"envs":%s}' \
        "$(json "$name")" "$(json "$env")" "$(json "$threads")" "$(json "$url")" \
        "$(json "$subfolder")" "$(json_list "$@")"
)"
