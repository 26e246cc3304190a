#!/usr/bin/python3
"""What is checked inside the machine of `cargo xtask test --vm`, a stage for each boot.

Every check prints a line `ok NAME` or `failed NAME: WHY` to a serial port, whose other end is a file
of the host that no power cut reaches. What a check needs, it makes itself; the machine has no network
and is thrown away.
"""

import glob
import json
import os
import random
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request

HERE = "/opt/vm"
TINYFAAS = HERE + "/tinyfaas"
# What the host reads: results, and acknowledged deployments.
HOST = "/dev/ttyS1"
# What the host has read in earlier boots, as text with blanks after it.
EARLIER = "/dev/vdb"
# A machine under emulation, beside other work: a condition comes in this time or never.
PATIENCE_S = 180
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

PYTHON = "import os\ndef fn(input):\n    return os.environ.get('SAYS', '') + (input or '')\n"
NODEJS = "module.exports = (req, res) => res.send('node ' + req.body);\n"
SCRIPT = "#!/bin/sh\nprintf 'sh '\nexec cat\n"


class Failed(Exception):
    """A check that did not hold."""


def check(condition, why):
    if not condition:
        raise Failed(why)


def run(*words, user=None, **more):
    command = ["runuser", "-u", user, "--"] if user else []
    command += words
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **more)


def must(*words, user=None, **more):
    ended = run(*words, user=user, **more)
    shown = (ended.stdout + ended.stderr)[-800:]
    check(ended.returncode == 0, "%s ended with %d: %s" % (" ".join(words), ended.returncode, shown))
    return ended.stdout


def until(what, look):
    """What `look` gives once it is true."""
    end = time.monotonic() + PATIENCE_S
    error = None
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
            error = found
        except (OSError, Failed, ValueError) as failure:
            error = failure
        time.sleep(0.2)
    raise Failed("waited in vain until %s (%s)" % (what, error))


def call(name, body="", port=8000):
    """A function's answer over HTTP."""
    request = urllib.request.Request(
        "http://127.0.0.1:%d/%s" % (port, name), data=body.encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return "HTTP %d: %s" % (error.code, error.read().decode())


def folder(name, file, text):
    path = "/tmp/functions/%s" % name
    os.makedirs(path, exist_ok=True)
    with open("%s/%s" % (path, file), "w") as out:
        out.write(text)
    os.chmod("%s/%s" % (path, file), 0o755)
    os.chmod(path, 0o755)
    return path


def deploy(name, runtime, path, *more, user=None, node=None):
    words = [TINYFAAS, "deploy", path, "--name", name, "--env", runtime, *more]
    if node:
        words += ["--node", node]
    return must(*words, user=user, env=environment(user))


def environment(user=None):
    env = {"PATH": PATH, "HOME": "/root"}
    if user:
        env.update(HOME="/home/" + user, XDG_RUNTIME_DIR="/run/user/1000")
    return env


def status(node=None, user=None):
    words = [TINYFAAS, "status", "--json"] + (["--node", node] if node else [])

    def told():
        found = json.loads(must(*words, user=user, env=environment(user)))
        # Asking every interpreter takes longer here than the status waits for.
        return found if found["isolation"] else None

    return until("the backend has told", told)


def wall(found, name):
    return next(wall for wall in found["isolation"] if wall["name"] == name)


def started(unit, port=8000):
    must("systemctl", "start", unit)
    try:
        until("%s answers" % unit, lambda: call("no-such-function", port=port).startswith("HTTP 404"))
    except Failed as failure:
        said = run("journalctl", "-q", "-n", "8", "-o", "cat", "-u", unit).stdout
        raise Failed("%s; it said: %s" % (failure, said)) from failure


def processes():
    """Every process that tinyFaaS or a handler of its is: id, command line, cgroup."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        try:
            words = open(path + "/cmdline", "rb").read().split(b"\0")
            cgroup = open(path + "/cgroup").read().strip().split("::")[-1]
        except OSError:
            continue
        line = b" ".join(words).decode("utf-8", "replace")
        if "tinyfaas" in words[0].decode("utf-8", "replace") or "/shim" in line:
            found.append((int(path.rsplit("/", 1)[-1]), line, cgroup))
    return found


def handlers():
    return [process for process in processes() if "/shim" in process[1]]


def every_runtime(port=8000):
    for name, body, answer in [("py", "x", "hello x"), ("js", "x", "node x"), ("sh", "x", "sh x")]:
        until("%s answers" % name, lambda: call(name, body, port) == answer)


def deploy_every_runtime(user=None, node=None):
    python, nodejs = folder("py", "fn.py", PYTHON), folder("js", "index.js", NODEJS)
    folder("js", "package.json", '{"name": "fn", "version": "1.0.0", "main": "index.js"}')
    deploy("py", "python3", python, "--var", "SAYS=hello ", user=user, node=node)
    deploy("js", "nodejs", nodejs, user=user, node=node)
    deploy("sh", "binary", folder("sh", "fn.sh", SCRIPT), user=user, node=node)


# The first boot.


def the_host_is_like_the_users():
    release = os.uname().release
    check(release.startswith("6.1."), release)
    check(os.path.exists("/sys/fs/cgroup/cgroup.controllers"), "cgroup version 2 is not mounted")


def a_system_unit_serves_every_runtime():
    started("tinyfaas.service")
    deploy_every_runtime()
    every_runtime()
    found = status()
    for name in ("namespaces", "own user", "cgroup limits", "landlock", "seccomp"):
        check(wall(found, name)["is_on"], "%s is off: %r" % (name, found["isolation"]))
    check(wall(found, "cgroup limits")["detail"] == "cgroup version 2", found["isolation"])
    check(wall(found, "landlock")["detail"] == "version 2", found["isolation"])


def the_units_cgroup_has_all_of_it():
    found = processes()
    check(len(handlers()) >= 2, found)
    for process in found:
        if "systemd-run" in process[1] or HERE + "/checks" in process[1]:
            continue
        check(process[2].startswith("/system.slice/tinyfaas.service/"), process)
    check(not glob.glob("/sys/fs/cgroup/tinyfaas-*"), "cgroups at the top of the tree")


def the_units_limits_hold_for_handlers():
    # The handlers' own limit is 256 MiB each, the unit's is less than two of them.
    text = "def fn(input):\n    global hog\n    hog = bytearray(200 << 20)\n    return 'hogged'\n"
    deploy("hog", "python3", folder("hog", "fn.py", text), "--threads", "1")
    check(call("hog") == "hogged", "a handler did not get what its own limit allows")
    events = open("/sys/fs/cgroup/system.slice/tinyfaas.service/memory.current").read()
    check(int(events) > 200 << 20, "the unit's cgroup counts %s" % events)
    must(TINYFAAS, "delete", "hog", env=environment())


def stopping_the_unit_leaves_nothing():
    must("systemctl", "stop", "tinyfaas.service")
    check(not processes(), processes())
    left = glob.glob("/sys/fs/cgroup/system.slice/tinyfaas.service*")
    check(not left, left)


def a_killed_node_leaves_no_handler_and_comes_back():
    started("tinyfaas.service")
    every_runtime()
    main = must("systemctl", "show", "-P", "MainPID", "tinyfaas.service").strip()
    before = {process[0] for process in handlers()}
    os.kill(int(main), 9)
    until("every handler has ended", lambda: not before & {p[0] for p in handlers()})
    # The unit starts again by itself.
    until("it serves again", lambda: call("sh", "x") == "sh x")


def a_user_unit_serves_every_runtime_with_limits():
    must("systemctl", "--user", "start", "tinyfaas-user.service", user="edge", env=environment("edge"))
    until("it answers", lambda: call("no-such-function", port=8001).startswith("HTTP 404"))
    node = "unix:/home/edge/.local/share/tinyfaas/management.sock"
    deploy_every_runtime(user="edge", node=node)
    every_runtime(port=8001)
    found = status(node, user="edge")
    for name in ("namespaces", "cgroup limits", "landlock", "seccomp"):
        check(wall(found, name)["is_on"], "%s is off: %r" % (name, found["isolation"]))
    below = [p for p in handlers() if "/user@1000.service/" in p[2]]
    check(len(below) >= 2, handlers())
    check(all("/tinyfaas-user.service/tinyfaas-" in p[2] for p in below), below)
    must("systemctl", "--user", "stop", "tinyfaas-user.service", user="edge", env=environment("edge"))
    check(not [p for p in processes() if "user@1000" in p[2]], processes())


def a_privileged_container_serves_with_limits():
    must("systemctl", "stop", "tinyfaas.service")
    check(not handlers(), handlers())
    started("tinyfaas-container.service", port=8004)
    node = "unix:/var/lib/tinyfaas-container/management.sock"
    text = "def fn(input): return str(len(bytearray(int(input) << 20)))\n"
    deploy("hog", "python3", folder("container", "fn.py", text), "--memory", "64M", node=node)
    check(call("hog", "20", port=8004) == str(20 << 20), "it got less than its limit")
    said = call("hog", "200", port=8004)
    check("HTTP 5" in said, "it got more than its limit: " + said)
    until("it answers again", lambda: call("hog", "1", port=8004) == str(1 << 20))
    found = status(node)
    for name in ("namespaces", "own user", "cgroup limits", "landlock", "seccomp"):
        check(wall(found, name)["is_on"], "%s is off: %r" % (name, found["isolation"]))
    cgroup = "/system.slice/tinyfaas-container.service/inside/tinyfaas-"
    check(handlers() and all(p[2].startswith(cgroup) for p in handlers()), handlers())
    must("systemctl", "stop", "tinyfaas-container.service")
    check(not handlers(), handlers())


def reduced_isolation_has_the_landlock_of_this_kernel():
    must("systemctl", "stop", "tinyfaas.service")
    started("tinyfaas-reduced.service", port=8002)
    node = "unix:/var/lib/tinyfaas-reduced/management.sock"
    found = status(node)
    landlock = wall(found, "landlock")
    check(landlock["is_on"] and landlock["detail"].startswith("version 2, "), landlock)
    check(wall(found, "own user")["is_on"], found)
    text = (
        "import os\ndef fn(input):\n"
        "    try: return 'read ' + open(input).read()\n"
        "    except OSError as error: return '%d %d' % (os.getuid(), error.errno)\n"
    )
    deploy("look", "python3", folder("look", "fn.py", text), node=node)
    with open("/opt/vm/public.txt", "w") as out:
        out.write("for everybody")
    os.chmod("/opt/vm/public.txt", 0o644)
    control = must("cat", "/opt/vm/public.txt", user="edge")
    check(control == "for everybody", control)
    said = call("look", "/opt/vm/public.txt", port=8002)
    uid, errno = said.split()
    check(int(uid) > 1_900_000_000 and errno == "13", said)
    must("systemctl", "stop", "tinyfaas-reduced.service")


def localhost_needs_no_line_in_hosts():
    check("localhost" not in open("/etc/hosts").read(), "/etc/hosts has localhost")
    control = run("getent", "ahosts", "localhost.")
    started("tinyfaas.service")
    for url in ("coap://localhost:5683/sh", "http://localhost:8000/sh", "grpc://localhost:9000/sh"):
        ended = run(TINYFAAS, "invoke", url, "--data", "x", env=environment())
        check(ended.stdout.startswith("sh x"), "%s: %r (control: %r)" % (url, ended, control))


def a_full_disk_does_not_stop_what_is_deployed():
    mount_small()
    deploy("kept", "python3", folder("kept", "fn.py", PYTHON), "--var", "SAYS=kept ", node=SMALL_NODE)
    check(call("kept", "x", port=8003) == "kept x", "it does not answer before")
    must("systemctl", "stop", "tinyfaas-small.service")
    run("dd", "if=/dev/zero", "of=/mnt/small/filler", "bs=4096")
    check(run("cp", TINYFAAS, "/mnt/small/more").returncode != 0, "the disk is not full")
    started("tinyfaas-small.service", port=8003)
    until("it answers", lambda: call("kept", "x", port=8003) == "kept x")
    refused = run(
        TINYFAAS, "deploy", folder("large", "fn.py", PYTHON + "#" * (1 << 20)),
        "--name", "large", "--env", "python3", "--node", SMALL_NODE, env=environment(),
    )
    check(refused.returncode != 0, "a deployment that does not fit was acknowledged")
    check(call("kept", "x", port=8003) == "kept x", "a refused deployment broke another function")
    must(TINYFAAS, "delete", "kept", "--node", SMALL_NODE, env=environment())
    must("systemctl", "stop", "tinyfaas-small.service")
    os.unlink("/mnt/small/filler")


def a_read_only_disk_does_not_stop_what_is_deployed():
    started("tinyfaas-small.service", port=8003)
    deploy("kept", "binary", folder("sh", "fn.sh", SCRIPT), node=SMALL_NODE)
    must("systemctl", "stop", "tinyfaas-small.service")
    must("mount", "-o", "remount,ro", "/mnt/small")
    started("tinyfaas-small.service", port=8003)
    until("it answers", lambda: call("kept", "x", port=8003) == "sh x")
    must("systemctl", "stop", "tinyfaas-small.service")


SMALL_NODE = "unix:/mnt/small/tinyfaas/management.sock"


def mount_small():
    must("truncate", "-s", "48M", "/small.img")
    must("mke2fs", "-q", "-F", "-t", "ext4", "/small.img")
    os.makedirs("/mnt/small", exist_ok=True)
    must("mount", "-o", "loop", "/small.img", "/mnt/small")
    started("tinyfaas-small.service", port=8003)


def the_escape_tests():
    """Each is a check of its own."""
    listed = must(HERE + "/escape", "--list")
    names = [line.split(": ")[0] for line in listed.splitlines() if line.endswith(": test")]
    check(len(names) > 40, listed)
    must("systemctl", "stop", "tinyfaas.service")
    words = ["systemd-run", "--wait", "--pipe", "--quiet", "-p", "Delegate=yes"]
    words += ["-E", "PATH=" + PATH, HERE + "/escape", "--test-threads", "2"]
    text, passed = [], set()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as tests:
        for line in tests.stdout:
            text.append(line)
            if line.startswith("test ") and line.endswith("... ok\n"):
                passed.add(line.split()[1])
                report("ok", "escape_" + line.split()[1])
    text = "".join(text)
    for name in names:
        if name not in passed:
            at = text.find("---- %s ----" % name)
            report("failed", "escape_" + name, text[at:at + 900])


def twenty_functions_are_deployed():
    started("tinyfaas.service")
    for number in range(20):
        name = "f%02d" % number
        deploy(name, "python3", folder("py", "fn.py", PYTHON), "--var", "SAYS=%s " % name)


FIRST = [
    the_host_is_like_the_users,
    a_system_unit_serves_every_runtime,
    the_units_cgroup_has_all_of_it,
    the_units_limits_hold_for_handlers,
    stopping_the_unit_leaves_nothing,
    a_killed_node_leaves_no_handler_and_comes_back,
    a_user_unit_serves_every_runtime_with_limits,
    a_privileged_container_serves_with_limits,
    reduced_isolation_has_the_landlock_of_this_kernel,
    localhost_needs_no_line_in_hosts,
    a_full_disk_does_not_stop_what_is_deployed,
    a_read_only_disk_does_not_stop_what_is_deployed,
    twenty_functions_are_deployed,
]


# The boots after that.


def the_stop_before_was_orderly():
    """What the unit's ExecStopPost wrote down of the shutdown of the machine."""
    said = open("/var/lib/tinyfaas-last-stop").read().split()
    check(said == ["success", "exited", "0"], said)


def twenty_functions_came_back():
    for number in range(20):
        name = "f%02d" % number
        said = until("%s answers" % name, lambda: call(name, "x"))
        check(said == name + " x", "%s answered %r" % (name, said))


def acknowledged():
    """The newest acknowledged version by the name of its function, before the cut."""
    newest = {}
    for line in open(EARLIER).read().rstrip("\0 \n").splitlines():
        words = line.split()
        if len(words) == 4 and words[0] == "acknowledged" and words[3] == ".":
            newest[words[1]] = int(words[2])
    return newest


def acknowledged_deployments_answer_rightly():
    newest = acknowledged()
    check(newest, "nothing was acknowledged before the cut")
    # The one after the last may have been made durable without an acknowledgement.
    under_way = max(newest.values()) + 1
    for name, version in sorted(newest.items()):
        said = until("%s answers" % name, lambda: call(name, "x"))
        answers = ["%s-%d x" % (name, number) for number in (version, under_way)]
        check(said in answers, "%s answered %r, not %r" % (name, said, answers[0]))


def deploy_until_the_power_is_cut():
    """Tells the host of every acknowledgement; never returns."""
    first = max([0, *acknowledged().values()]) + 2
    for version in range(first, 1_000_000):
        name = "cut%d" % random.randrange(6)
        runtime, file, text = random.choice([
            ("python3", "fn.py", PYTHON),
            ("nodejs", "index.js", "module.exports = (q, r) => r.send(process.env.SAYS + q.body)\n//"),
            ("binary", "fn.sh", "#!/bin/sh\nprintf '%s' \"$SAYS\"\nexec cat\n"),
        ])
        # No two have the same code.
        path = folder("cut-" + runtime, file, text + "# %d\n" % version)
        if runtime == "nodejs":
            folder("cut-nodejs", "package.json", '{"name": "fn", "version": "1.0.0", "main": "index.js"}')
        deploy(name, runtime, path, "--var", "SAYS=%s-%d " % (name, version))
        tell("acknowledged %s %d ." % (name, version))


def tell(line):
    with open(HOST, "w") as out:
        out.write(line + "\n")


def report(word, name, why=""):
    line = "%s %s" % (word, name)
    if why:
        line += ": " + " ".join(str(why).split())[:1500]
    tell(line)
    print(line, flush=True)


def attempt(test):
    begun = time.monotonic()
    try:
        test()
    except Exception as error:
        known = isinstance(error, Failed)
        report("failed", test.__name__, error if known else traceback.format_exc())
        return
    if test is not the_escape_tests:
        report("ok", test.__name__)
    print("%.1f s" % (time.monotonic() - begun), flush=True)


def main(stage):
    stages = {
        "first": FIRST,
        "reboot": [the_stop_before_was_orderly, twenty_functions_came_back, the_escape_tests],
        "cut": [acknowledged_deployments_answer_rightly, twenty_functions_came_back],
        "last": [acknowledged_deployments_answer_rightly, twenty_functions_came_back],
    }
    for test in stages[stage]:
        attempt(test)
    report("end", stage)
    if stage in ("reboot", "cut"):
        started("tinyfaas.service")
        deploy_until_the_power_is_cut()


main(next(w.split("=")[1] for w in open("/proc/cmdline").read().split() if w.startswith("stage=")))
