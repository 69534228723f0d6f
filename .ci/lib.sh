# Shared by the other scripts in this directory; sourced, never run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

# Prints the next step.
step() { printf '\n==> %s\n' "$*"; }

# Ends the check with an error message.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root, directly or by sudo without a password; fails if neither is possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

need_cargo() {
    if ! have cargo && [ -r "$HOME/.cargo/env" ]; then
        # shellcheck disable=SC1091 # written by rustup
        . "$HOME/.cargo/env"
    fi
    have cargo || die "cargo is missing; install Rust from https://rustup.rs"
}
