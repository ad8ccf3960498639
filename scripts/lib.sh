# What the scripts beside this file share. Source it: it only defines functions.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The directory that outlives a checkout: tools and bits that are slow to get.
cache_dir() {
    local dir=${XDG_CACHE_HOME:-$HOME/.cache}/faas
    mkdir -p "$dir"
    printf '%s\n' "$dir"
}

# Runs a command as root, or says what the user has to run.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this needs root and there is no sudo; run as root: $*"
    fi
}

installed() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'; }

# Package lists younger than an hour are good enough.
apt_refresh() {
    [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_*' -mmin -60 2>/dev/null | head -n 1)" ] || return 0
    as_root apt-get update -qq >&2 || say "some package lists could not be refreshed; going on"
}

# Prints the mirror of packages that this machine uses, when it is one of a release of this name.
apt_mirror() {
    # shellcheck disable=SC2016 # apt-get expands these
    apt-get indextargets --format '$(RELEASE) $(SITE)' 'Created-By: Packages' | awk -v suite="$1" '$1 == suite { print $2; exit }'
}

# Installs the named packages of the distribution that are missing. Quick when none is.
apt_install() {
    local missing=() package
    for package in "$@"; do
        installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them (no apt-get here)"
    say "installing ${missing[*]}"
    apt_refresh
    quietly as_root env DEBIAN_FRONTEND=noninteractive ${RUNLEVEL:+RUNLEVEL="$RUNLEVEL"} apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${missing[@]}"
}

# Installs a package for its program alone, unless that is there: the service that comes with it does not start.
apt_install_program() {
    local program=$1 package=$2 service=$3
    ! command -v "$program" >/dev/null || return 0
    local systemd=""
    [ ! -d /run/systemd/system ] || systemd=yes
    [ -z "$systemd" ] || as_root systemctl mask --quiet "$service" 2>/dev/null || true
    RUNLEVEL=1 apt_install "$package"
    [ -z "$systemd" ] || as_root systemctl unmask --quiet "$service" 2>/dev/null || true
    [ -z "$systemd" ] || as_root systemctl disable --quiet "$service" 2>/dev/null || true
}

# Shows what a command printed only when it fails.
quietly() {
    local printed
    printed=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$printed" >&2; return 1; }
}

# Does a Docker engine answer this user? DOCKER_HOST and contexts count.
docker_answers() {
    command -v docker >/dev/null && timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# A user who may use sudo but is not in the docker group gets that group for this one command.
with_docker_group() {
    docker_answers && return 0
    [ "$(id -u)" != 0 ] && [ -z "${FAAS_DOCKER_GROUP:-}" ] && command -v sudo >/dev/null || return 0
    sudo -n docker version >/dev/null 2>&1 || return 0
    say "using the docker group through sudo (to be in it for good: sudo usermod -aG docker $(id -un))"
    exec sudo --preserve-env -u "$(id -un)" -g docker -- env "HOME=$HOME" "PATH=$PATH" FAAS_DOCKER_GROUP=1 "$@"
}

# A command as one would type it.
typed() {
    local word
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=-]+$ ]] || word=${word@Q}
        printf ' %s' "$word"
    done
}
