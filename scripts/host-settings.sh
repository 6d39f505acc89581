# Sourced by scripts/realserver and scripts/director: runs or prints commands, remembers what was before, says what is wrong.
# POSIX sh; needs iproute2 and /proc, nothing else. Works on the network namespace that it runs in.
#
# The state file has one line for each thing done, so that `stop` can undo it, last first:
#   namespace INODE MAC               whose settings these are
#   method WORD
#   sysctl KEY OLD NEW                KEY as a path below /proc/sys
#   address CIDR DEV
#   link-up DEV · link-added DEV · port-of DEV BRIDGE
#   route OLD                         what the default route was ('none')
#   table N RULE                      a routing table of ours and the rule that leads to it
#   fou PORT · process PID WORD

LC_ALL=C
export LC_ALL
dry=no state_dir=${TAPVS_STATE_DIR:-/run/tapvs-host} wrong=0

die() { echo "$self: $*" >&2; exit 1; }
usage_error() { echo "$self: $*; see $self --help" >&2; exit 64; }

# run WORDS…: run a command, or only show it.
run() {
  if [ "$dry" = yes ]; then printf '%s\n' "$*"; return 0; fi
  "$@" || die "failed: $*"
}

is_address() { printf '%s\n' "$1" | awk -F. 'NF != 4 { exit 1 } { for (i = 1; i <= 4; i++) if ($i !~ /^[0-9]+$/ || $i > 255) exit 1 }'; }

# ---- the state file

# A namespace's inode number comes back in a later one; its first interface's MAC tells the two apart.
namespace_id() { printf '%s %s\n' "$(stat -L -c %i /proc/self/ns/net)" "$(ip -o link show 2>/dev/null | sed -n 's|.*link/ether \([0-9a-f:]*\).*|\1|p' | head -n 1)"; }
state_open() { # NAME
  inode=$(stat -L -c %i /proc/self/ns/net)
  if [ "$inode" = "$(stat -L -c %i /proc/1/ns/net 2>/dev/null)" ]; then inode=host; fi
  state=$state_dir/$1.$inode
  if [ "$inode" != host ] && [ -f "$state" ] && [ "$(state_get namespace)" != "$(namespace_id)" ]; then rm -f "$state"; fi
}
state_get() { [ -f "$state" ] && awk -v kind="$1" '$1 == kind { sub(/^[^ ]+ /, ""); print }' "$state"; }
state_has() { [ -f "$state" ] && grep -qxF "$*" "$state"; }
state_put() {
  if [ "$dry" = yes ] || state_has "$@"; then return 0; fi
  mkdir -p "$state_dir"
  [ -f "$state" ] || printf 'namespace %s\n' "$(namespace_id)" >"$state"
  printf '%s\n' "$*" >>"$state"
}
# state_drop PREFIX: forget the lines that begin so.
state_drop() {
  if [ "$dry" = yes ] || [ ! -f "$state" ]; then return 0; fi
  awk -v prefix="$1" 'index($0, prefix) != 1' "$state" >"$state.new" && mv "$state.new" "$state"
}

# ---- doing

sysctl_read() { cat "/proc/sys/$1" 2>/dev/null; }
# As sysctl(8) writes it: dots, unless a device's name has dots itself.
sysctl_name() { case $1 in *.*) printf '%s' "$1" ;; *) printf '%s' "$1" | tr / . ;; esac; }
sysctl_write() { # KEY VALUE
  if [ "$dry" = yes ]; then echo "sysctl -w $(sysctl_name "$1")=$2"; return 0; fi
  printf '%s\n' "$2" >"/proc/sys/$1" || die "cannot set $(sysctl_name "$1") to $2"
}
# set_sysctl KEY VALUE: what it was is remembered the first time; a value that somebody else set meanwhile counts as what it was.
set_sysctl() {
  now=$(sysctl_read "$1") || return 0
  was=$(state_get sysctl | awk -v key="$1" '$1 == key { print $2, $3 }')
  if [ "$now" = "$2" ]; then return 0; fi
  if [ -n "$was" ] && [ "$now" = "${was#* }" ]; then old=${was% *}; else old=$now; fi
  sysctl_write "$1" "$2"
  state_drop "sysctl $1 "
  state_put sysctl "$1" "$old" "$2"
}
address_on() { ip -o -4 address show to "$1" | awk '{ print $2 }'; }
add_address() { # IP DEV
  if ip -o -4 address show dev "$2" to "$1" 2>/dev/null | grep -q " $1/32 "; then return 0; fi
  run ip address add "$1/32" dev "$2"
  state_put address "$1/32" "$2"
}
is_up() { ip -o link show dev "$1" 2>/dev/null | grep -q '[<,]UP[,>]'; }
set_up() { # DEV
  if is_up "$1"; then return 0; fi
  run ip link set "$1" up
  state_put link-up "$1"
}

# undo LINE: takes one thing back.
undo() {
  set -f
  # shellcheck disable=SC2086
  set -- $1
  set +f
  case $1 in
    sysctl)
      now=$(sysctl_read "$2") || return 0
      if [ "$now" = "$4" ]; then sysctl_write "$2" "$3"
      else echo "$self: $(sysctl_name "$2") is $now by now, not $4: left alone" >&2; fi ;;
    address) if ip -o -4 address show dev "$3" to "${2%/*}" 2>/dev/null | grep -q .; then run ip address del "$2" dev "$3"; fi ;;
    link-up) if is_up "$2"; then run ip link set "$2" down; fi ;;
    link-added) if [ -e "/proc/sys/net/ipv4/conf/$2" ]; then run ip link del "$2"; fi ;;
    port-of) if ip link show dev "$2" >/dev/null 2>&1; then run ip link set "$2" nomaster; fi ;;
    route)
      if [ "$2" = none ]; then if ip route show default | grep -q .; then run ip route del default; fi
      else shift; run ip route replace "$@"; fi ;;
    table)
      table=$2
      shift 2
      while ip rule show | grep -q "lookup $table *$"; do run ip rule del "$@" lookup "$table"; if [ "$dry" = yes ]; then break; fi; done
      if ip route show table "$table" 2>/dev/null | grep -q .; then run ip route flush table "$table"; fi ;;
    fou) run ip fou del port "$2" ;;
    process)
      if ! grep -qa "$3" "/proc/$2/cmdline" 2>/dev/null; then return 0; fi
      run kill "$2"
      tries=0
      while [ "$dry" = no ] && [ -e "/proc/$2" ] && [ $tries -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done ;;
  esac
}
undo_all() {
  [ -f "$state" ] || return 0
  awk '{ line[NR] = $0 } END { for (i = NR; i > 0; i--) print line[i] }' "$state" >"$state.undo"
  while IFS= read -r line; do undo "$line"; done <"$state.undo"
  rm -f "$state.undo"
  if [ "$dry" = no ]; then rm -f "$state" "$state.decap.log"; fi
}

# ---- saying

good() { printf 'ok     %s\n' "$*"; }
note() { printf 'note   %s\n' "$*"; }
# bad WHAT-AND-WHY [COMMAND-THAT-MENDS-IT…]
bad() {
  wrong=$((wrong + 1))
  printf 'WRONG  %s\n' "$1"
  shift
  for mend in "$@"; do printf '         mend: %s\n' "$mend"; done
}
verdict() {
  if [ $wrong -eq 0 ]; then echo 'all is well'; exit 0; fi
  if [ $wrong -eq 1 ]; then echo '1 thing is wrong'; else echo "$wrong things are wrong"; fi
  exit 1
}
# The greater of what holds for all interfaces and for this one: arp_ignore, arp_announce and rp_filter work so.
effective() { # KEY DEV
  a=$(sysctl_read "net/ipv4/conf/all/$1") b=$(sysctl_read "net/ipv4/conf/$2/$1")
  a=${a:-0} b=${b:-0}
  if [ "$a" -gt "$b" ]; then echo "$a"; else echo "$b"; fi
}
# The MACs that answer ARP for an address on a device; status 2 when it cannot be asked.
who_has() { # IP DEV [SOURCE]
  command -v arping >/dev/null || return 2
  arping -b -c 2 -w 1 -s "${3:-0.0.0.0}" -I "$2" "$1" 2>/dev/null | sed -n 's/.*\[\([0-9A-Fa-f:]*\)\].*/\1/p' | tr A-F a-f | sort -u
}
