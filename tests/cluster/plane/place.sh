# Where a plane lives: its namespaces, and what of it this machine can see. Source it from scripts/cluster: it only defines
# functions. They take from there: $dir, $bin, $source_dir, $alone (there are no namespaces) and $bound (it ends with us).
# shellcheck shell=bash disable=SC2154

# Sets $holder: the process whose only child is process 1 of the plane. Its id may be another's by now.
held() {
    [ -s "$dir/holder" ] || return 1
    holder=$(cat "$dir/holder")
    local words=()
    mapfile -d '' words 2>/dev/null <"/proc/$holder/cmdline" || return 1
    # It is a shell for a moment, before it is unshare.
    [[ ${words[*]:0:2} == @(unshare|bash -c)* ]] && [ "${words[-1]}" = "$dir" ]
}

# inside COMMAND...: among the processes and mounts of the plane, and in its network; outside: in this machine's network.
inside() {
    if [ -n "$alone" ]; then "$@"; else enter --net -- "$@"; fi
}
outside() { enter -- "$@"; }
enter() { nsenter --target "$holder" --mount --pid="/proc/$holder/ns/pid_for_children" "$@"; }

# The holder writes its own id before anything else, so that it can be found however this script ends. With run, the plane
# does not outlive the script.
make_namespaces() {
    cat /run/systemd/resolve/resolv.conf >"$dir/resolv.conf" 2>/dev/null || cat /etc/resolv.conf >"$dir/resolv.conf" || true
    # shellcheck disable=SC2016 # the inner shell expands these
    setsid ${bound:+setpriv --pdeathsig KILL} bash -c 'echo $$ >"$0/holder"; exec "$@"' "$dir" \
        unshare --mount --propagation slave --net --pid --fork --kill-child=KILL --mount-proc "$source_dir/init" "$bin" \
        "$dir" >"$dir/logs/init.log" 2>&1 </dev/null &
    local deadline=$((SECONDS + 10))
    until [ -e "$dir/ready" ] && held; do
        if [ "$SECONDS" -ge "$deadline" ] || ! kill -0 $! 2>/dev/null; then
            die "no namespaces: $(tail -n 1 "$dir/logs/init.log")"
        fi
        sleep 0.05
    done
}

# Nothing in there is to be kept, so nothing is asked to end: process 1 is killed, and the kernel kills the others.
end_namespaces() {
    held || return 0
    # shellcheck disable=SC2046 # there is one, or none yet
    kill -KILL $(cat "/proc/$holder/task/$holder/children") 2>/dev/null || kill -KILL "$holder" 2>/dev/null || true
    while held; do sleep 0.05; done
}

# settle N: what follows from the number of a plane on this machine.
settle() {
    link=faas-plane$1
    cgroup=/faas-plane$1
    net=10.213.$((80 + 4 * $1))
    outer=$net.1
    address=$net.2
    pods=10.213.$((81 + 4 * $1))
    services=10.213.$((82 + 4 * $1))
    more_pods=10.213.$((83 + 4 * $1))
}

# Other planes may come and go at the same time.
lock() { exec 9>"$(cache_dir)/cluster-$1.lock" && flock 9; }
unlock() { exec 9>&-; }

# rules ACTION: what lets the plane's network out of this machine, past the policies of others.
rules() {
    local code=0
    iptables --wait -t nat "$1" POSTROUTING -s "$net.0/22" ! -o "$link" -j MASQUERADE || code=1
    iptables --wait "$1" FORWARD -i "$link" -j ACCEPT || code=1
    iptables --wait "$1" FORWARD -o "$link" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT || code=1
    return "$code"
}

# The first number that is free is ours once its interface exists; the interface goes with the plane, however it ends.
claim_number() {
    local number said
    for number in {0..15}; do
        settle "$number"
        if said=$(ip link add "$link" type veth peer name eth0 netns "$holder" 2>&1); then
            ip link set "$link" alias "$dir"
            echo "number=$number" >>"$dir/faas-plane"
            return
        fi
        [[ $said == *"File exists"* ]] || break
    done
    die "no network can be made: $said"
}

make_network() {
    lock network
    claim_number
    rules -D 2>/dev/null || true
    rules -I
    unlock
    ip address add "$outer/30" dev "$link"
    ip link set "$link" up
    ip route add "$net.0/22" via "$address" dev "$link"
    inside ip address add "$address/30" dev eth0
    inside ip link set eth0 up
    inside ip route add default via "$outer"
    # Without this, what is for a pod or a Service that is gone would go to and fro on the interface.
    inside ip route add unreachable "$pods.0/24"
    inside ip route add unreachable "$more_pods.0/24"
    inside iptables --wait -A FORWARD -d "$services.0/24" -o eth0 -j REJECT
}

# The kubelet makes the rest below it; in the first version of cgroups, each controller has a tree of its own.
# make_cgroup NAME
make_cgroup() {
    local tree controller
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        for controller in $(</sys/fs/cgroup/cgroup.controllers); do
            echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
        done
        mkdir -p "/sys/fs/cgroup$1"
    else
        for tree in /sys/fs/cgroup/*/; do mkdir -p "$tree$1"; done
    fi
}

# Nothing of a number that is another's by now is touched.
remove_traces() {
    local deadline=$((SECONDS + 10)) owner tree
    settle "$1"
    # It goes with its network, which the kernel removes some time after the last process in there is gone.
    while owner=$(cat "/sys/class/net/$link/ifalias" 2>/dev/null) && [ "$owner" = "$dir" ]; do
        [ "$SECONDS" -lt "$deadline" ] || die "the network $link stays: what is in $dir still runs"
        sleep 0.05
    done
    lock network
    if [ ! -e "/sys/class/net/$link" ]; then
        rules -D 2>/dev/null || true
        for tree in /sys/fs/cgroup{,/*}"$cgroup"; do
            [ ! -d "$tree" ] || find "$tree" -depth -type d -exec rmdir {} +
        done
    fi
    unlock
}

# What goes to the pods of the second node, and what they say, is heard by nobody.
silence() {
    local direction code=0
    for direction in -s -d; do inside iptables --wait "$1" FORWARD "$direction" "$more_pods.0/24" -j DROP || code=1; done
    return "$code"
}
