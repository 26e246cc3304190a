# What the scripts share. Sourced by them, not run.
#
# TINYFAAS_NODE   the management service, http://localhost:8080 unless set
# TINYFAAS_TOKEN  its token, where it wants one

node="${TINYFAAS_NODE:-http://localhost:8080}"

need() {
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            echo "this script needs $tool; install it first" >&2
            exit 1
        fi
    done
}

# usage COUNT "ARGUMENTS" "$@": stops where there are fewer than COUNT arguments.
usage() {
    least="$1"
    words="$2"
    shift 2
    if [ "$#" -lt "$least" ]; then
        echo "usage: $(basename "$0") $words" >&2
        exit 2
    fi
}

# A text as a JSON string.
json() {
    printf '"%s"' "$(printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/	/\\t/g' |
        awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }')"
}

# Every argument as a JSON list of strings.
json_list() {
    separator=""
    printf '['
    for text in "$@"; do
        printf '%s' "$separator"
        json "$text"
        separator=","
    done
    printf ']'
}

# call PATH [CURL OPTION...]: prints the answer; fails where the node refuses.
call() {
    path="$1"
    shift
    if [ -n "${TINYFAAS_TOKEN:-}" ]; then
        # By way of a file descriptor, as other users can read the command line.
        set -- --config - "$@"
        printf 'header = "Authorization: Bearer %s"\n' "$TINYFAAS_TOKEN" |
            curl --silent --show-error --fail-with-body "$@" "$node$path"
        return
    fi
    curl --silent --show-error --fail-with-body "$@" "$node$path"
}
