# Sourced by other scripts: makes sure that programs are there, installing Debian's packages for them
# where that is possible. Exits 2 and names what is missing where it is not.

# The oldest Java that runs Apache Kafka's own tools.
java_needed=17

# The Debian package that has each program.
package_of() {
  case "$1" in
    cc) echo gcc ;;
    java) echo default-jre-headless ;;
    mvn) echo maven ;;
    docker) echo docker.io ;;
    ip) echo iproute2 ;;
    kill) echo procps ;;
    readelf) echo binutils ;;
    losetup | mount) echo mount ;;
    mkfs.ext4) echo e2fsprogs ;;
    mkfs.xfs) echo xfsprogs ;;
    *) echo "$1" ;;
  esac
}

# Java's major version, 1 for those before 9, 0 where it says none.
java_version() {
  local version
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  echo "${version:-0}"
}

# Whether a program is there, in a version that will do. A builtin of this shell is none that others can start.
has() {
  type -P "$1" >/dev/null || return 1
  [ "$1" != java ] || [ "$(java_version)" -ge $java_needed ]
}

# again COMMAND…: what needs the network is tried three times, with pauses.
again() {
  local pause
  for pause in 10 30; do
    "$@" && return
    echo "trying again in $pause s: $*" >&2
    sleep $pause
  done
  "$@"
}

# Whether this user may install packages.
may_install() {
  type -P apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

# install_packages PACKAGE…, with the lists of packages that are there, or new ones. Another installation may be under way.
install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  [ "$(id -u)" -eq 0 ] || apt=(sudo -n "${apt[@]}")
  "${apt[@]}" install -y "$@" >/dev/null 2>&1 </dev/null && return
  "${apt[@]}" update >/dev/null </dev/null
  "${apt[@]}" install -y "$@" >/dev/null </dev/null
}

# require PROGRAM…
require() {
  local program missing=() packages=()
  for program in "$@"; do
    has "$program" || missing+=("$program")
  done
  [ ${#missing[@]} -eq 0 ] && return
  for program in "${missing[@]}"; do
    if [ "$program" = cargo ]; then
      echo "missing: a Rust toolchain (cargo), 1.88 or newer: https://rustup.rs" >&2
      exit 2
    fi
    packages+=("$(package_of "$program")")
  done
  echo "installing ${packages[*]}…" >&2
  if ! may_install || ! again install_packages "${packages[@]}"; then
    echo "missing: ${missing[*]} (Debian: apt-get install ${packages[*]}), and it cannot be installed from here" >&2
    exit 2
  fi
  if [[ " ${missing[*]} " == *" java "* ]] && ! has java; then
    echo "java here is version $(java_version): Apache Kafka's tools need $java_needed or newer" >&2
    exit 2
  fi
}
