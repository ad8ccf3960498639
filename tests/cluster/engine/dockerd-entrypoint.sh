#!/bin/sh
# The entry point of what stands in for docker:dind-rootless, where that cannot be pulled. It takes the command that the
# overlay build-engine gives and runs it as the public one does: in a user namespace, with a network and copies of /etc and
# /run of its own, below an init.
set -eu
[ "${1:-}" = dockerd ] || { echo "the command must be dockerd, with its flags" >&2; exit 2; }
[ "$(id -u)" != 0 ] || { echo "it must not be run as root" >&2; exit 2; }
XDG_RUNTIME_DIR=/run/user/$(id -u)
export XDG_RUNTIME_DIR
mkdir -p "$XDG_RUNTIME_DIR"
exec rootlesskit --net=slirp4netns --mtu=1500 --disable-host-loopback --port-driver=builtin --copy-up=/etc --copy-up=/run \
    docker-init -- "$@"
