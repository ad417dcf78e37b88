#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The certificate of the coordinator's public address, and the authority that hospitals pin. README.md tells who runs what where.
#
#   tls.sh authority AUTHORITY             make the authority: ca.key, which stays on its own medium, and ca.crt, which goes to everybody
#   tls.sh request   TLS HOST [HOST...]    on the proxy: a new key, and next/server.csr to be signed. The key never leaves
#   tls.sh sign      AUTHORITY CSR         beside the authority: a certificate for 90 days, server.crt beside the CSR
#   tls.sh install   TLS CRT CA HOST       on the proxy: prove the pair, then switch to it in one step; what was there is kept
#   tls.sh check     TLS [HOST]            what is in use: chain, name, key, days. Exit 0 fine, 3 renew now, 1 wrong
#
# Renewal is request, sign, install again; the old certificate goes on being valid meanwhile, so nothing has to happen at once.
set -euo pipefail
umask 077

SERVER_DAYS=90
RENEW_DAYS=30
AUTHORITY_DAYS=3650

fail() { printf 'tls.sh: %s\n' "$1" >&2; exit 1; }
usage() { sed -n '/^#   tls.sh/s/^#   //p' "$0" >&2; exit 2; }
fingerprint() { openssl x509 -in "$1" -noout -fingerprint -sha256 | sed 's/.*=//'; }
until_day() { openssl x509 -in "$1" -noout -enddate | sed 's/notAfter=//'; }

authority() {
    [ ! -e "$1/ca.key" ] || fail "'$1/ca.key' exists already; an authority is never overwritten"
    mkdir -p "$1"
    openssl ecparam -name prime256v1 -genkey -noout -out "$1/ca.key"
    openssl req -x509 -new -key "$1/ca.key" -sha256 -days "$AUTHORITY_DAYS" -out "$1/ca.crt" -subj '/CN=fedward transport authority' \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' -addext 'subjectKeyIdentifier=hash'
    chmod 644 "$1/ca.crt"
    printf 'authority until %s\nto be compared by telephone: %s\n' "$(until_day "$1/ca.crt")" "$(fingerprint "$1/ca.crt")"
}

request() {
    place=$1; shift
    [ ! -e "$place/next" ] || fail "'$place/next' is waiting for its certificate; install it, or remove that folder"
    names=
    for host; do
        case $host in
            *[!A-Za-z0-9.:-]*) fail "'$host' is no host's name" ;;
            *:*) kind=IP ;;
            *[!0-9.]*) kind=DNS ;;
            *) kind=IP ;;
        esac
        names="$names${names:+,}$kind:$host"
    done
    mkdir -p "$place/next"
    openssl ecparam -name prime256v1 -genkey -noout -out "$place/next/server.key"
    openssl req -new -key "$place/next/server.key" -sha256 -subj "/CN=$1" -addext "subjectAltName=$names" -out "$place/next/server.csr"
    printf 'to be signed: %s\n' "$place/next/server.csr"
}

sign() {
    [ -r "$1/ca.key" ] || fail "'$1/ca.key' cannot be read here"
    openssl req -in "$2" -noout -verify 2>/dev/null || fail "'$2' is no request, or not signed by its own key"
    names=$(openssl req -in "$2" -noout -text | sed -n '/Subject Alternative Name/{n;s/^ *//;s/IP Address:/IP:/g;p;}')
    [ -n "$names" ] || fail "'$2' names no host"
    extensions=$(mktemp); trap 'rm -f "$extensions"' EXIT
    # Only the names are taken from the request; what the certificate may do is said here.
    printf '%s\n' "subjectAltName=$names" 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
        'extendedKeyUsage=serverAuth' 'authorityKeyIdentifier=keyid' >"$extensions"
    crt=$(dirname "$2")/server.crt
    openssl x509 -req -in "$2" -CA "$1/ca.crt" -CAkey "$1/ca.key" -set_serial "0x$(openssl rand -hex 16)" -sha256 -days "$SERVER_DAYS" \
        -extfile "$extensions" -out "$crt" 2>/dev/null
    chmod 644 "$crt"
    printf '%s for %s until %s\n' "$crt" "$names" "$(until_day "$crt")"
}

install_pair() {
    place=$1 crt=$2 ca=$3 host=$4
    prove "$crt" "$place/next/server.key" "$ca" "$host"
    [ "$crt" -ef "$place/next/server.crt" ] || cp "$crt" "$place/next/server.crt"
    cp "$ca" "$place/next/ca.crt"
    rm -f "$place/next/server.csr"
    chmod 644 "$place/next/server.crt" "$place/next/ca.crt"
    into=$place/$(date -u +%Y%m%dT%H%M%SZ)-$(openssl rand -hex 2)
    mv "$place/next" "$into"
    ln -s "$(basename "$into")" "$place/live.new"
    mv -T "$place/live.new" "$place/live" # one rename: a reader finds the old pair or the new one
    printf 'in use from the next reload of the proxy: %s until %s\n' "$place/live" "$(until_day "$place/live/server.crt")"
}

# A pair is proved before it is used: chain, name, purpose, and that certificate and key belong together.
prove() {
    openssl verify -CAfile "$3" -purpose sslserver -verify_hostname "$4" "$1" >/dev/null 2>&1 ||
        openssl verify -CAfile "$3" -purpose sslserver -verify_ip "$4" "$1" >/dev/null 2>&1 ||
        fail "'$1' is not valid for '$4' under '$3', or not now"
    [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout)" ] || fail "'$1' and '$2' do not belong together"
}

check() {
    live=$1/live
    [ -e "$live/server.crt" ] || fail "'$live' is not there; install a certificate first"
    host=${2:-$(openssl x509 -in "$live/server.crt" -noout -subject -nameopt RFC2253 | sed 's/.*CN=//;s/,.*//')}
    prove "$live/server.crt" "$live/server.key" "$live/ca.crt" "$host"
    [ "$(stat -c %a "$(readlink -f "$live/server.key")")" = 600 ] || fail "'$live/server.key' is not for its owner alone: chmod 600"
    printf '%s until %s\n' "$host" "$(until_day "$live/server.crt")"
    openssl x509 -in "$live/server.crt" -noout -checkend $((RENEW_DAYS * 86400)) >/dev/null || {
        printf 'renew now: tls.sh request %s %s\n' "$1" "$host"
        exit 3
    }
}

[ $# -ge 1 ] || usage
task=$1; shift
case $task:$# in
    authority:1) authority "$1" ;;
    request:0|request:1) usage ;;
    request:*) request "$@" ;;
    sign:2) sign "$1" "$2" ;;
    install:4) install_pair "$1" "$2" "$3" "$4" ;;
    check:1|check:2) check "$@" ;;
    *) usage ;;
esac
