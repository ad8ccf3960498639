# What a plane is made of and how each part is started. Source it from scripts/cluster: it only defines functions.
# They take from there: $dir, $bin, $node (empty: only etcd and the API server), and what DIR/faas-plane tells.
# shellcheck shell=bash disable=SC2154

# start NAME COMMAND...: in the background, in a session of its own, with nothing of our environment: a proxy or a KUBECONFIG
# in there would lead it astray.
start() {
    # shellcheck disable=SC2016 # the inner shell expands these
    ${network:-inside} bash -c 'name=$1; shift
        setsid env -i "PATH=$PATH" "HOME=$0" "$@" >>"$0/logs/$name.log" 2>&1 </dev/null &
        echo $! >"$0/run/$name.pid"' "$dir" "$@"
}

# Is a part alive? Its process id may be somebody else's by now, whose command line does not name our directory.
running() {
    [ -e "$dir/run/$1.pid" ] && inside grep -qaF "$dir/" "/proc/$(cat "$dir/run/$1.pid")/cmdline" 2>/dev/null
}

# Prints the name of a part that has ended by itself.
ended() {
    # shellcheck disable=SC2016 # the inner shell expands these
    inside bash -c 'for file in "$0"/run/*.pid; do kill -0 "$(<"$file")" 2>/dev/null || basename "$file" .pid; done' "$dir"
}

# await NAME CHECK...: until the check of a part holds; not longer than 60 s, nor than all parts live.
await() {
    local name=$1 deadline=$((SECONDS + 60)) gone
    shift
    until "$@" >/dev/null 2>&1; do
        gone=$(ended | head -n 1)
        [ "$SECONDS" -lt "$deadline" ] || gone=$name
        if [ -n "$gone" ]; then
            tail -n 5 "$dir/logs/$gone.log" >&2
            die "$gone does not work: its last words are above"
        fi
        sleep 0.1
    done
}

# certify NAME SUBJECT [EXTENSION]: a key and a certificate, by the plane's own authority once there is one.
certify() {
    local issuer=(-CA "$dir/pki/ca.crt" -CAkey "$dir/pki/ca.key" -addext "basicConstraints=critical,CA:FALSE")
    [ "$1" != ca ] || issuer=(-addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign")
    quietly openssl req -config <(printf '[req]\ndistinguished_name = dn\n[dn]\n') -x509 -days 30 -newkey ec \
        -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" "${issuer[@]}" ${3:+-addext "$3"} \
        -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.crt"
}

certify_all() {
    mkdir -m 700 "$dir/pki"
    certify ca /CN=plane
    certify server /CN=kube-apiserver \
        "subjectAltName=IP:127.0.0.1,IP:$address,IP:$services.1,DNS:localhost,DNS:kubernetes.default.svc"
    certify to-kubelet /O=system:masters/CN=kube-apiserver
    certify service-accounts /CN=service-accounts
    user kubeconfig /O=system:masters/CN=admin "https://$address:$api_port"
    [ -n "$node" ] || return 0
    local name
    for name in kube-controller-manager kube-scheduler kube-proxy; do
        user "$name.conf" "/CN=system:$name" "https://127.0.0.1:$api_port"
    done
    for name in "" -2; do
        user "kubelet$name.conf" "/O=system:nodes/CN=system:node:$node$name" "https://127.0.0.1:$api_port"
    done
}

# user FILE SUBJECT SERVER: a kubeconfig that holds all it needs, so that it can be copied.
user() {
    certify "$1" "$2"
    local ca crt key
    ca=$(base64 -w 0 "$dir/pki/ca.crt") crt=$(base64 -w 0 "$dir/pki/$1.crt") key=$(base64 -w 0 "$dir/pki/$1.key")
    (umask 077 && cat >"$dir/$1") <<END
apiVersion: v1
kind: Config
clusters: [{name: plane, cluster: {server: "$3", certificate-authority-data: $ca}}]
users: [{name: plane, user: {client-certificate-data: $crt, client-key-data: $key}}]
contexts: [{name: plane, context: {cluster: plane, user: plane}}]
current-context: plane
END
}

start_etcd() {
    start etcd "$etcd" --name plane --data-dir "$dir/etcd" \
        --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
        --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
        --initial-cluster "plane=http://127.0.0.1:$peer_port"
}

# With a node it listens on all addresses of the plane's own network; pods find it by the one it advertises. Without one
# nobody makes service accounts, and none must be asked for.
start_api() {
    start kube-apiserver "$apiserver" --etcd-servers "http://127.0.0.1:$etcd_port" \
        --bind-address "$bind" --advertise-address "$address" --secure-port "$api_port" \
        --cert-dir "$dir/pki" --tls-cert-file "$dir/pki/server.crt" --tls-private-key-file "$dir/pki/server.key" \
        --client-ca-file "$dir/pki/ca.crt" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --allow-privileged \
        --service-cluster-ip-range "$services.0/24" --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$dir/pki/service-accounts.crt" \
        --service-account-signing-key-file "$dir/pki/service-accounts.key" \
        --kubelet-client-certificate "$dir/pki/to-kubelet.crt" --kubelet-client-key "$dir/pki/to-kubelet.key" \
        --kubelet-preferred-address-types InternalIP ${alone:+--disable-admission-plugins ServiceAccount}
}

# At its usual pace the controller manager takes five seconds to make service accounts, its own before the first of ours.
start_controllers() {
    start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig "$dir/kube-controller-manager.conf" \
        --bind-address 127.0.0.1 --leader-elect=false --use-service-account-credentials \
        --kube-api-qps 1000 --kube-api-burst 1000 --flex-volume-plugin-dir "$dir/opt/volumes" \
        --root-ca-file "$dir/pki/ca.crt" --service-account-private-key-file "$dir/pki/service-accounts.key" \
        --cluster-signing-cert-file "$dir/pki/ca.crt" --cluster-signing-key-file "$dir/pki/ca.key"
    start kube-scheduler "$bin/kube-scheduler" --kubeconfig "$dir/kube-scheduler.conf" \
        --bind-address 127.0.0.1 --leader-elect=false
    # Where connections are counted the machine decides, not a network of its own: it may not be written there.
    start kube-proxy "$bin/kube-proxy" --kubeconfig "$dir/kube-proxy.conf" --hostname-override "$node" \
        --proxy-mode iptables --cluster-cidr "$pods.0/24" \
        --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s \
        --oom-score-adj 0
}

# start_containerd [SUFFIX]: of the second node, what it has of its own has this at its end.
start_containerd() {
    local own=${1:-} subnet=$pods
    [ -z "$own" ] || subnet=$more_pods
    mkdir -p "$dir/cni$own" "$dir/certs.d/$address:$registry_port"
    printf '[host."http://%s"]\n' "$address:$registry_port" >"$dir/certs.d/$address:$registry_port/hosts.toml"
    # Each pod gets a pair of interfaces and a route, no bridge: what goes between pods is routed, so Services work for them
    # whether or not this machine shows bridged packets to its firewall.
    cat >"$dir/cni$own/plane.conflist" <<END
{"cniVersion": "0.4.0", "name": "plane", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/addresses$own", "subnet": "$subnet.0/24",
                           "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
    cat >"$dir/containerd$own.toml" <<END
version = 2
root = "$dir/containerd$own"
state = "/run/containerd$own"
[grpc]
address = "$dir/containerd$own.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$pause_image"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni$own"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "$dir/certs.d"
END
    start "containerd$own" containerd --config "$dir/containerd$own.toml" --log-level info
}

# ctr_k8s SUFFIX ARGUMENT...
ctr_k8s() { ctr --address "$dir/containerd$1.sock" --namespace k8s.io "${@:2}"; }

# start_kubelet [SUFFIX PORT HEALTH-PORT]: two nodes share one address.
start_kubelet() {
    local own=${1:-} groups=$cgroup
    [ -z "$own" ] || groups=$cgroup/node$own
    cat >"$dir/kubelet$own.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
port: ${2:-10250}
healthzPort: ${3:-10248}
authentication: {x509: {clientCAFile: "$dir/pki/ca.crt"}}
cgroupDriver: cgroupfs
cgroupRoot: $groups
containerRuntimeEndpoint: unix://$dir/containerd$own.sock
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
# The pause image cannot be pulled again.
imageGCHighThresholdPercent: 100
oomScoreAdj: 0
podLogsDir: $dir/logs/pods$own
registryPullQPS: 0
serializeImagePulls: false
volumePluginDir: $dir/opt/volumes
END
    start "kubelet$own" "$bin/kubelet" --config "$dir/kubelet$own.yaml" --kubeconfig "$dir/kubelet$own.conf" \
        --root-dir "$dir/kubelet$own" --cert-dir "$dir/kubelet$own/pki" --hostname-override "$node$own" --node-ip "$address"
}

# A Docker engine on the node, at its usual place for pods, and at one that this machine reaches.
start_engine() {
    mkdir -p "$dir/engine"
    echo '{}' >"$dir/engine.json"
    start dockerd dockerd --config-file "$dir/engine.json" --host unix:///run/docker.sock --host "unix://$dir/engine.sock" \
        --data-root "$dir/engine" --exec-root /run/engine --pidfile /run/engine.pid --cgroup-parent "$cgroup/engine" \
        --bridge none --iptables=false --log-level warn
}
engine_answers() { docker --host "unix://$dir/engine.sock" version; }

# One store, served in two networks: to this machine on loopback, where Docker pushes without being told to, and in the plane
# under the same name to the node, and under the node's address to pods.
start_registry() {
    local name address
    for name in registry=: outer-registry=127.0.0.1:; do
        address=${name#*=}$registry_port name=${name%=*}
        cat >"$dir/$name.yaml" <<END
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: "$dir/registry"}, delete: {enabled: true}}
http: {addr: "$address", secret: plane}
END
    done
    start registry docker-registry serve "$dir/registry.yaml"
    network=outside start outer-registry docker-registry serve "$dir/outer-registry.yaml"
}
