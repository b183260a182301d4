# Sourced by other scripts: makes sure that programs are there, installing Debian's packages for them
# where that is possible. Exits 2 and names what is missing where it is not.

# The Debian package that has each program.
package_of() {
  case "$1" in
    cc) echo gcc ;;
    java) echo default-jre-headless ;;
    mvn) echo maven ;;
    docker) echo docker.io ;;
    ip) echo iproute2 ;;
    readelf) echo binutils ;;
    losetup | mount) echo mount ;;
    mkfs.ext4) echo e2fsprogs ;;
    mkfs.xfs) echo xfsprogs ;;
    *) echo "$1" ;;
  esac
}

# require PROGRAM…
require() {
  local program missing=() packages=() sudo=()
  for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ ${#missing[@]} -eq 0 ] && return
  for program in "${missing[@]}"; do
    if [ "$program" = cargo ]; then
      echo "missing: a Rust toolchain (cargo), 1.88 or newer: https://rustup.rs" >&2
      exit 2
    fi
    packages+=("$(package_of "$program")")
  done
  [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
  echo "installing ${packages[*]}…" >&2
  if ! command -v apt-get >/dev/null ||
    ! { "${sudo[@]}" apt-get install -y -qq "${packages[@]}" >/dev/null 2>&1 ||
      { "${sudo[@]}" apt-get update -qq >/dev/null 2>&1 &&
        "${sudo[@]}" apt-get install -y -qq "${packages[@]}" >/dev/null 2>&1; }; }; then
    echo "missing: ${missing[*]} (Debian: apt-get install ${packages[*]}), and it cannot be installed from here" >&2
    exit 2
  fi
}
