#!/bin/sh
# Installs Hallpass from its release tarball, on a Linux without the Debian package. As root, in the unpacked directory:
#   ./install.sh [--prefix DIRECTORY]    installs or updates; the default prefix is /usr/local
#   ./install.sh --uninstall             removes what it installed, with the same --prefix
#
# It installs the program, its user, the systemd unit, man pages, completions and the hooks of certs/, and starts nothing.
# An existing configuration is never changed or removed. With DESTDIR, all files go below that directory, and no user is
# created.
set -eu

prefix=/usr/local
action=install
DESTDIR="${DESTDIR:-}"

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

while [ "$#" -gt 0 ]; do
    case "$1" in
        --prefix)
            [ "$#" -ge 2 ] || fail "--prefix needs a directory"
            prefix="${2%/}"
            shift
            ;;
        --prefix=*)
            prefix="${1#--prefix=}"
            prefix="${prefix%/}"
            ;;
        --uninstall) action=uninstall ;;
        -h | --help)
            sed -n '2,9s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) fail "$1 is no option; see --help" ;;
    esac
    shift
done
case "$prefix" in
    /*) ;;
    *) fail "--prefix needs an absolute path, not '$prefix'" ;;
esac
[ -n "$DESTDIR" ] || [ "$(id -u)" = 0 ] || fail "run this as root"

etc="$DESTDIR/etc"
unit="$etc/systemd/system/hallpass.service"
sysctl="$etc/sysctl.d/60-hallpass.conf"
takeover="$DESTDIR$prefix/sbin/hallpass-takeover-coturn"
share="$DESTDIR$prefix/share"
lib="$DESTDIR$prefix/lib/hallpass"

# Whether systemd runs this machine, and not a directory that becomes one.
has_systemd() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

if [ "$action" = uninstall ]; then
    if has_systemd && [ -e "$unit" ]; then
        systemctl disable --now hallpass.service || fail "the relay does not stop: nothing is removed"
    fi
    rm -f "$DESTDIR$prefix/bin/hallpass" "$takeover" "$unit" "$sysctl" \
        "$share"/man/man1/hallpass.1 "$share"/man/man1/hallpass-*.1 "$share"/man/man8/hallpass-takeover-coturn.8 \
        "$share/bash-completion/completions/hallpass" "$share/zsh/site-functions/_hallpass" \
        "$share/fish/vendor_completions.d/hallpass.fish"
    rm -rf "$lib" "$share/hallpass"
    ! has_systemd || systemctl daemon-reload
    echo "install.sh: removed. /etc/hallpass and the user hallpass stay: the configuration and the secrets are yours."
    exit 0
fi

cd "$(dirname "$0")"
[ -x ./hallpass ] || fail "there is no program beside this script: unpack the whole tarball"
version="$(./hallpass --version)" || fail "the program does not run here: this machine is a $(uname -m), or its C library is too old"

if [ -z "$DESTDIR" ] && ! id hallpass >/dev/null 2>&1; then
    if command -v useradd >/dev/null 2>&1; then
        useradd --system --user-group --home-dir / --no-create-home --shell /usr/sbin/nologin hallpass
    else
        # busybox
        addgroup -S hallpass
        adduser -S -D -H -h / -s /sbin/nologin -G hallpass hallpass
    fi
fi

# put MODE FILE TARGET: installs a file under a new name, so that a program that runs is not overwritten.
put() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

put 755 hallpass "$DESTDIR$prefix/bin/hallpass"
put 755 conf/hallpass-takeover-coturn "$takeover"
for hook in certs/hooks/* certs/renewal-hooks/*; do
    put 755 "$hook" "$lib/${hook##*/}"
done
for page in man/*; do
    put 644 "$page" "$share/man/man${page##*.}/${page##*/}"
done
put 644 completions/hallpass "$share/bash-completion/completions/hallpass"
put 644 completions/_hallpass "$share/zsh/site-functions/_hallpass"
put 644 completions/hallpass.fish "$share/fish/vendor_completions.d/hallpass.fish"
for file in conf/hallpass.toml conf/examples/* conf/nftables.conf conf/sysctl.conf; do
    put 644 "$file" "$share/hallpass/${file##*/}"
done
for file in conf/bbb/* conf/nginx/* conf/haproxy/* conf/grafana/* conf/prometheus/prometheus.yml conf/prometheus/hallpass.rules.yml; do
    put 644 "$file" "$share/hallpass/${file#conf/}"
done
put 644 conf/sysctl.conf "$sysctl"
mkdir -p "$(dirname "$unit")"
# The unit names the program of the Debian package.
sed "s#/usr/bin/hallpass#$prefix/bin/hallpass#g" conf/hallpass.service >"$unit.new"
chmod 644 "$unit.new"
mv -f "$unit.new" "$unit"

configuration="$etc/hallpass/hallpass.toml"
mkdir -p "$etc/hallpass"
chmod 750 "$etc/hallpass"
[ -n "$DESTDIR" ] || chown root:hallpass "$etc/hallpass"
if [ ! -e "$configuration" ]; then
    (umask 077 && cp conf/hallpass.toml "$configuration")
    chmod 640 "$configuration"
    [ -n "$DESTDIR" ] || chown root:hallpass "$configuration"
fi

if [ -z "$DESTDIR" ]; then
    # A container may not change kernel settings: `hallpass check` reports those that are missing.
    sysctl -q -p "$sysctl" 2>/dev/null || true
fi
running=no
if has_systemd; then
    systemctl daemon-reload
    ! systemctl is-active --quiet hallpass.service || running=yes
fi
echo "install.sh: $version is in $prefix/bin."
if [ "$running" = yes ]; then
    echo "The relay still runs the version before. Check with the new one, then restart:"
    echo "    hallpass check --config /etc/hallpass/hallpass.toml && systemctl restart hallpass"
else
    echo "Nothing is started. Edit /etc/hallpass/hallpass.toml; examples are in $prefix/share/hallpass. Then:"
    echo "    hallpass check --config /etc/hallpass/hallpass.toml --live"
    echo "    systemctl enable --now hallpass"
fi
