#!/bin/sh
# Installs a certificate and its key, and makes Hallpass read them. No connection is dropped.
#   install-certificate.sh CHAIN KEY
# certbot-deploy.sh and acme.sh-reload.sh, beside this file, call it; so can any other ACME client, as root.
#
# Both files are complete, with owner and mode, before either replaces the old one. If a step fails, the old pair stays. If
# the files are in place already, nothing is installed or reloaded. Between the two renames the server may find the new key
# with the old certificate: it then keeps the pair in use until the signal that follows.
set -eu

# The directory of [tls] cert and key, the group that may read the key, and the unit to signal.
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

# Whether $1 is installed as $2, with owner and mode $3.
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

# A copy of the old key, which is restored if the certificate cannot be replaced.
[ ! -e "$directory/privkey.pem" ] || cp -p "$directory/privkey.pem" "$work/old.pem"
mv -fT "$work/privkey.pem" "$directory/privkey.pem"
if ! mv -fT "$work/fullchain.pem" "$directory/fullchain.pem"; then
    [ ! -e "$work/old.pem" ] || mv -fT "$work/old.pem" "$directory/privkey.pem"
    fail "the old certificate stays: cannot replace $directory/fullchain.pem"
fi

# A server that is still starting reads the new files anyway, and the signal would end it.
if systemctl is-active --quiet "$unit"; then
    # SIGUSR2 reloads the certificate only, not the configuration.
    systemctl kill --kill-who=main --signal=USR2 "$unit" ||
        fail "the new certificate is in place and $unit does not use it yet; run: systemctl reload $unit"
fi
