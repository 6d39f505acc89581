# Sourced by the scripts: what every entry needs before it starts. Says what it does, does it only when it is missing.
set -euo pipefail
TAPVS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$TAPVS_ROOT"

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() {
  [ "$(id -u)" = 0 ] || die "this needs root: it makes network namespaces and opens TUN/TAP devices. Run: sudo $0"
  [ -c /dev/net/tun ] || die "/dev/net/tun is missing: the kernel has no TUN/TAP, or this container hides it (mknod /dev/net/tun c 10 200)"
}

need_node() {
  command -v node >/dev/null || die "Node.js 20 or newer is needed and not installed"
  node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' || die "Node.js 20 or newer is needed; this is $(node --version)"
}

# need_debian COMMAND=PACKAGE …: install the packages whose command is missing.
need_debian() {
  local missing=() pair
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  install_debian "${missing[@]}"
}

# need_python MODULE=PACKAGE …: the same for modules of Debian's own Python.
need_python() {
  local missing=() pair
  for pair in "$@"; do
    /usr/bin/python3 -c "import ${pair%%=*}" 2>/dev/null || missing+=("${pair#*=}")
  done
  install_debian "${missing[@]}"
}

install_debian() {
  local missing=("$@")
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "please install: ${missing[*]} (this machine has no apt-get)"
  say "installing Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/tmp/tapvs-apt.$$ 2>&1 || {
    cat /tmp/tapvs-apt.$$ >&2
    die "apt-get could not install: ${missing[*]}"
  }
  rm -f /tmp/tapvs-apt.$$
}

need_modules() {
  local stamp=node_modules/.tapvs-installed want
  want=$(node --version; cat package.json package-lock.json | sha256sum)
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
    say "installing npm packages (npm ci)"
    npm ci --loglevel=error
    printf '%s' "$want" >"$stamp"
  fi
}

need_build() {
  make -s -C native
  if [ ! -f dist/.built ] || [ -n "$(find src bench scripts tsconfig.json tsconfig.build.json -newer dist/.built -name '*.[tj]s*' -print -quit)" ]; then
    say "compiling TypeScript"
    npm run -s build:ts
    touch dist/.built
  fi
}

set_up() {
  need_node
  need_debian ip=iproute2 gcc=gcc make=make curl=curl tcpdump=tcpdump ethtool=ethtool ping=iputils-ping python3=python3 nstat=iproute2 sysctl=procps "$@"
  need_modules
  need_build
}
