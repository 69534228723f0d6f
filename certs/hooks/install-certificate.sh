#!/bin/sh
# Puts a certificate and its key where Hallpass reads them and has them read, without dropping anyone.
#   install-certificate.sh CHAIN KEY
# certbot-deploy.sh and acme.sh-reload.sh, beside this file, call it; so can any other ACME client, as root.
#
# Both files are complete, with owner and mode, before either takes the place of the old one. Whatever fails leaves the old
# pair; files that are the same already are left alone, and nothing is reloaded. Between the two renames the server may see
# a new certificate with an old key: it then keeps the one it has, until the signal behind them.
set -eu

# Where [tls] cert and key point to, who may read the key besides root, and whom to tell.
directory="${HALLPASS_DIRECTORY:-/etc/hallpass}"
group="${HALLPASS_GROUP:-hallpass}"
unit="${HALLPASS_UNIT:-hallpass.service}"

fail() {
    printf 'hallpass hook: %s\n' "$*" >&2
    exit 1
}

[ "$#" = 2 ] || fail "usage: $0 CHAIN KEY"
chain="$1" key="$2"
[ -s "$chain" ] || fail "there is no certificate in $chain"
[ -s "$key" ] || fail "there is no key in $key"
[ -d "$directory" ] || fail "there is no directory $directory; set HALLPASS_DIRECTORY to that of [tls] cert and key"

# Whether $1 is in place as $2, with owner and mode $3.
is_there() {
    cmp -s "$1" "$directory/$2" && [ "$(stat -c '%U:%G %a' "$directory/$2")" = "$3" ]
}
if is_there "$chain" fullchain.pem "root:$group 644" && is_there "$key" privkey.pem "root:$group 640"; then
    exit 0
fi

umask 077
# In the directory itself, so that the last step is a rename.
work="$(mktemp -d "$directory/.renewal.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cat "$chain" >"$work/fullchain.pem"
cat "$key" >"$work/privkey.pem"
chown "root:$group" "$work/fullchain.pem" "$work/privkey.pem" ||
    fail "the old certificate stays: create the group $group that the server runs with, or set HALLPASS_GROUP"
chmod 644 "$work/fullchain.pem"
chmod 640 "$work/privkey.pem"
sync "$work/fullchain.pem" "$work/privkey.pem"

# The old key comes back if its certificate cannot be replaced.
[ ! -e "$directory/privkey.pem" ] || cp -p "$directory/privkey.pem" "$work/old.pem"
mv -fT "$work/privkey.pem" "$directory/privkey.pem"
if ! mv -fT "$work/fullchain.pem" "$directory/fullchain.pem"; then
    [ ! -e "$work/old.pem" ] || mv -fT "$work/old.pem" "$directory/privkey.pem"
    fail "the old certificate stays: cannot replace $directory/fullchain.pem"
fi

# Before the server is ready it reads the new files anyway, and a signal would end it.
if systemctl is-active --quiet "$unit"; then
    # SIGUSR2 has the certificate read again and leaves the configuration alone.
    systemctl kill --kill-who=main --signal=USR2 "$unit" ||
        fail "the new certificate is in place and $unit does not use it yet: systemctl reload $unit"
fi
