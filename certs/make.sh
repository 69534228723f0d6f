#!/bin/sh
# Makes a certificate for tests and trials, and the CAs that issue it: certs/make.sh KIND DIRECTORY [NAME]
#
# Writes to DIRECTORY, which must exist,
#   ca.pem    the root, for clients that must trust the certificate
#   cert.pem  the server's certificate, then the intermediate one
#   key.pem   the server's key, mode 600
# and nothing else. NAME is the server's name (default: relay.test); localhost, 127.0.0.1 and ::1 are in the certificate
# too. KIND is one of
#   good           ECDSA on P-256, valid from an hour ago for 30 days
#   expired        until yesterday
#   not-yet-valid  from tomorrow on
#   other-name     for other.test alone, whatever NAME is
#   leaf-only      without the intermediate certificate in cert.pem
#   rsa-2048       with an RSA key
#   rsa-4096       with an RSA key whose signatures take milliseconds; made in seconds
#   self-signed    signed with its own key: ca.pem and cert.pem are the same
# The keys of the two CAs are deleted, so they cannot sign another certificate.
set -eu

usage() {
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ "$#" = 2 ] || [ "$#" = 3 ] || usage
kind="$1" directory="$2" name="${3:-relay.test}"
key_type="ec -pkeyopt ec_paramgen_curve:P-256"
names="DNS:$name,DNS:localhost,IP:127.0.0.1,IP:::1"
from="-1 hour" until="+30 days"
case "$kind" in
    good | leaf-only | self-signed) ;;
    expired) from="-30 days" until="-1 day" ;;
    not-yet-valid) from="+1 day" ;;
    other-name) name=other.test names=DNS:other.test ;;
    rsa-2048) key_type=rsa:2048 ;;
    rsa-4096) key_type=rsa:4096 ;;
    *) usage ;;
esac

here="$(cd "$(dirname "$0")" && pwd)"
# In the directory itself, so that the last step is a rename.
work="$(mktemp -d "$directory/.make.XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
export CERTS_NAMES="$names" CERTS_WORK="$work"
umask 077

# Runs OpenSSL and prints its output only if it fails.
quietly() {
    openssl "$@" >"$work/output" 2>&1 || {
        cat "$work/output" >&2
        exit 1
    }
}

# A key of the type $1 and a certificate or a request for the name $2 in $work/$3.*; further arguments are OpenSSL's.
new() {
    type="$1" subject="$2" file="$work/$3"
    shift 3
    # shellcheck disable=SC2086 # the type of a key is several words
    quietly req -config "$here/openssl.cnf" -newkey $type -nodes -sha256 -subj "/CN=$subject" \
        -keyout "$file.key" -out "$file.pem" "$@"
}

if [ "$kind" = self-signed ]; then
    new "$key_type" "$name" leaf -x509 -days 30 -extensions alone
    cp "$work/leaf.pem" "$work/root.pem"
    : >"$work/chain"
else
    ec="ec -pkeyopt ec_paramgen_curve:P-256"
    new "$ec" "Hallpass test root" root -x509 -days 3650 -extensions root
    new "$ec" "Hallpass test intermediate" intermediate -x509 -days 3650 -extensions intermediate \
        -CA "$work/root.pem" -CAkey "$work/root.key"
    new "$key_type" "$name" request -new
    : >"$work/database"
    # Only `openssl ca` accepts both dates.
    quietly ca -batch -notext -config "$here/openssl.cnf" -extensions leaf \
        -startdate "$(date -u -d "$from" +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "$until" +%Y%m%d%H%M%SZ)" \
        -cert "$work/intermediate.pem" -keyfile "$work/intermediate.key" -in "$work/request.pem" -out "$work/leaf.pem"
    mv "$work/request.key" "$work/leaf.key"
    cp "$work/intermediate.pem" "$work/chain"
    [ "$kind" != leaf-only ] || : >"$work/chain"
fi

cat "$work/leaf.pem" "$work/chain" >"$work/cert.pem"
chmod 644 "$work/cert.pem" "$work/root.pem"
mv -f "$work/root.pem" "$directory/ca.pem"
mv -f "$work/leaf.key" "$directory/key.pem"
mv -f "$work/cert.pem" "$directory/cert.pem"
