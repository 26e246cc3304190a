#!/bin/sh
# Runs a node as a privileged container runs it: process 1 of its namespaces, alone in what seems to
# it the top of the tree of cgroups.
set -eu
unit=/sys/fs/cgroup/system.slice/tinyfaas-container.service
mkdir "$unit/outside" "$unit/inside"
echo 0 >"$unit/outside/cgroup.procs"
echo '+memory +pids +cpu' >"$unit/cgroup.subtree_control"
exec unshare --pid --fork --kill-child --mount --mount-proc sh -euc '
    echo 0 >"$0/cgroup.procs"
    exec unshare --cgroup sh -euc '\''
        umount --lazy /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        exec /opt/vm/tinyfaas serve "$@"
    '\'' sh "$@"
' "$unit/inside" "$@"
