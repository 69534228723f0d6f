#!/bin/sh
# A deploy hook for certbot. Set it only for the certificate that Hallpass serves:
#   certbot certonly --standalone -d relay.example.org --deploy-hook /usr/local/lib/hallpass/certbot-deploy.sh
# certbot keeps it with that certificate and runs it as root after each renewal, with the directory of the certificate in
# RENEWED_LINEAGE. For an existing certificate:
#   certbot reconfigure --cert-name relay.example.org --deploy-hook /usr/local/lib/hallpass/certbot-deploy.sh
#   RENEWED_LINEAGE=/etc/letsencrypt/live/relay.example.org /usr/local/lib/hallpass/certbot-deploy.sh
# install-certificate.sh must be in the same directory.
set -eu

[ -n "${RENEWED_LINEAGE:-}" ] || {
    echo "hallpass hook: RENEWED_LINEAGE is not set: let certbot run this, or set it to /etc/letsencrypt/live/NAME" >&2
    exit 1
}
# The hook may be a link to this file.
here="$(dirname "$(readlink -f "$0")")"
exec "$here/install-certificate.sh" "$RENEWED_LINEAGE/fullchain.pem" "$RENEWED_LINEAGE/privkey.pem"
