#!/bin/sh
# The reload command for acme.sh. Set it once:
#   acme.sh --install-cert -d relay.example.org --ecc --reloadcmd /usr/local/lib/hallpass/acme.sh-reload.sh
# acme.sh keeps it with that certificate and runs it, then and after each renewal, with the paths of the certificate in
# CERT_FULLCHAIN_PATH and CERT_KEY_PATH. --key-file and --fullchain-file are left out on purpose: acme.sh overwrites those
# files in place, and a reload meanwhile would find only half of them. It must run as root, with install-certificate.sh in
# the same directory.
set -eu

if [ -z "${CERT_FULLCHAIN_PATH:-}" ] || [ -z "${CERT_KEY_PATH:-}" ]; then
    echo "hallpass hook: CERT_FULLCHAIN_PATH or CERT_KEY_PATH is not set: acme.sh runs this as its --reloadcmd" >&2
    exit 1
fi
here="$(dirname "$(readlink -f "$0")")"
exec "$here/install-certificate.sh" "$CERT_FULLCHAIN_PATH" "$CERT_KEY_PATH"
